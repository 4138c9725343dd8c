//! The paper's figures (Soh, Cho and Cho, CVPR 2020), as printed.

/// Every score: table, scale, kernel, data set, method, PSNR, SSIM (may be missing).
const SCORES: &str = include_str!("paper_tables.tsv");
/// Parameters in thousands and seconds for 256 × 256 to 512 × 512, on the authors' GPU.
const COMPLEXITY: &str = include_str!("paper_complexity.tsv");
/// The name of the table of parameters and times.
pub const COMPLEXITY_TABLE: &str = "complexity";
/// The names of its tables.
pub const TABLES: [&str; 5] = ["bicubic", "kernels", "multiscale", "kernel_x4", COMPLEXITY_TABLE];

/// A printed score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// In dB.
    pub psnr: f64,
    /// Where it was printed.
    pub ssim: Option<f64>,
}

/// Whether there is a table of that name.
pub fn has_table(name: &str) -> bool {
    TABLES.contains(&name)
}

/// The methods of a table that have a figure for `set`, in the order printed.
pub fn methods(table: &str, set: &str) -> Vec<&'static str> {
    if table == COMPLEXITY_TABLE {
        return lines(COMPLEXITY).filter_map(|line| line.first().copied()).collect();
    }
    let mut all = Vec::new();
    for line in lines(SCORES) {
        if let [t, _, _, s, method, ..] = line[..]
            && (t, s) == (table, set)
            && !all.contains(&method)
        {
            all.push(method);
        }
    }
    all
}

/// The figure of `method` for a degradation (by the paper's name) and a set.
pub fn figure(table: &str, scale: f64, kernel: &str, set: &str, method: &str) -> Option<Figure> {
    lines(SCORES).find_map(|line| match line[..] {
        [t, s, k, d, m, psnr, ssim]
            if (t, k, d, m) == (table, kernel, set, method) && s.parse::<f64>().ok() == Some(scale) =>
        {
            Some(Figure { psnr: psnr.parse().ok()?, ssim: ssim.parse().ok() })
        }
        _ => None,
    })
}

/// Parameters and seconds of `method`, where the paper gives them.
pub fn complexity(method: &str) -> Option<(usize, f64)> {
    lines(COMPLEXITY).find_map(|line| match line[..] {
        [name, thousands, seconds] if name == method => {
            Some((thousands.parse::<usize>().ok()? * 1000, seconds.parse().ok()?))
        }
        _ => None,
    })
}

fn lines(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().skip(1).map(|line| line.split('\t').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found() {
        let found = figure("kernels", 2.0, "g2.0 d", "Set5", "MZSR(10)").unwrap();
        assert_eq!((found.psnr, found.ssim), (36.05, Some(0.9439)));
        let found = figure("multiscale", 2.0, "g_ani d", "Set5", "Multi-scale(10)").unwrap();
        assert_eq!((found.psnr, found.ssim), (33.95, None));
        assert_eq!(figure("kernels", 4.0, "g2.0 d", "Set5", "MZSR(10)"), None);
        assert_eq!(methods("kernel_x4", "BSD100").len(), 7);
        assert_eq!(complexity("MZSR(1)"), Some((225_000, 0.13)));
        for line in lines(SCORES) {
            assert!(line.len() == 7 && has_table(line[0]), "{line:?}");
            assert!(figure(line[0], line[1].parse().unwrap(), line[2], line[3], line[4]).is_some(), "{line:?}");
        }
        assert!(TABLES.iter().all(|table| !methods(table, "Set5").is_empty()));
    }
}
