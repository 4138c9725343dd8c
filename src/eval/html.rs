//! One HTML file without any other: tables, curves, times, pictures.

use super::results::{Line, LineKind, MethodInfo, Results, Shown, Value, parts, seconds, thousands};
use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light;--ink:#1c2330;--soft:#5b6576;--line:#dde2ea;--good:#0a6b3c;--bad:#a3271f}\
*{box-sizing:border-box}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:#fff;margin:0 auto;max-width:76rem;padding:1rem}\
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.25rem;margin:2rem 0 .5rem}\
h3{font-size:1rem;margin:1.2rem 0 .4rem}p{max-width:46rem}\
.scroll{overflow-x:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}\
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:top}\
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}\
thead th{border-bottom:2px solid var(--ink)}\
td small{display:block;color:var(--soft);font-size:.78rem}\
td .better{color:var(--good);font-weight:600}td .worse{color:var(--bad);font-weight:600}\
td .best{font-weight:700}tr.other td{color:var(--soft)}\
.notes{font-size:.85rem;color:var(--soft);padding-left:1.1rem;max-width:60rem}.notes li{margin:.25rem 0}\
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.2rem,1fr));gap:.6rem}\
figure{margin:0;position:relative}figure img{width:100%;display:block;image-rendering:pixelated}\
figcaption{font-size:.8rem;line-height:1.3;margin-top:.2rem}figcaption small{color:var(--soft);display:block}\
svg.kernel{position:absolute;top:0;right:0;width:28%;height:auto;border:1px solid #fff}\
.bar{display:inline-block;height:.65rem;background:#7aa2d6;vertical-align:middle;margin-right:.4rem;border-radius:2px}\
.plot{max-width:42rem;width:100%;height:auto}.plot text{font:15px system-ui,sans-serif;fill:#5b6576}\
code{font-size:.95em}\
@media(max-width:40rem){body{padding:.7rem}th,td{padding:.3rem .35rem}.pictures{grid-template-columns:1fr 1fr}\
table{font-size:.8rem}.scores th:nth-child(2),.scores td:nth-child(2){display:none}\
.ssim,td small span{display:block}.ssim{font-size:.9em}td:first-child,th:first-child{white-space:normal}\
.wide th:last-child,.wide td:last-child{display:none}\
.times th,.times td{white-space:normal}.bar{display:block}}";

/// Colours of curves: distinct in grey too.
const COLOURS: [&str; 6] = ["#1f5fa8", "#c4541a", "#2d8a4e", "#8a3ea8", "#6b6b1a", "#a3274f"];

/// The report.
pub(super) fn report(results: &Results) -> String {
    let suite = &results.suite;
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escaped(&suite.title)
    );
    // Writing to a string cannot fail, here and below.
    if !suite.about.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", escaped(suite.about.trim()));
    }
    let compares = results.compares_times()
        || results.sets.iter().any(|set| results.lines(set).iter().any(|line| line.kind == LineKind::Paper));
    let _ = writeln!(
        out,
        "<p>{}{}</p>",
        if suite.ground_truth {
            "Each cell: mean PSNR in dB, and SSIM."
        } else {
            "Each cell: how far the result, made small again, is from the picture, in 8-bit levels."
        },
        if compares {
            " Small print: the paper’s figure, and how much ours differs (<span class=\"better\" style=\"color:var(--good)\">above</span>, \
             <span style=\"color:var(--bad)\">below</span>). Grey rows were not run here."
        } else {
            ""
        }
    );
    for set in &results.sets {
        let _ = writeln!(out, "<h2>{}</h2>", escaped(set));
        table(&mut out, results, set);
        curves(&mut out, results, set);
        costs(&mut out, results, set);
    }
    out += "<h2>Notes</h2>\n<ul class=\"notes\">\n";
    let footnotes = results.footnotes();
    for note in footnotes.iter().chain(&results.notes) {
        let _ = writeln!(out, "<li>{}</li>", coded(note.trim()));
    }
    for method in results.methods.iter().filter(|method| !method.detail.is_empty()) {
        let _ = writeln!(out, "<li>{}: {}</li>", escaped(&method.name), escaped(&method.detail));
    }
    let _ = writeln!(out, "<li>mzsr {}, {}</li>\n</ul>", env!("CARGO_PKG_VERSION"), escaped(&results.engine));
    if !results.shown.is_empty() {
        out += "<h2>Pictures</h2>\n<p>The part of each picture with the most detail, pixel by pixel. The blur kernel is \
                drawn in the corner of the small picture (lighter: heavier).</p>\n";
        for shown in &results.shown {
            pictures(&mut out, results, shown);
        }
    }
    out += "</body></html>\n";
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Text with what stands between backticks as code.
fn coded(text: &str) -> String {
    let parts: Vec<String> = escaped(text)
        .split('`')
        .enumerate()
        .map(|(i, part)| if i % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() })
        .collect();
    parts.concat()
}

fn table(out: &mut String, results: &Results, set: &str) {
    let lines = results.lines(set);
    // The times are in a table of their own below, when there are several methods.
    let class = if results.columns.len() > 2 { "scores wide" } else { "scores" };
    let _ = write!(out, "<div class=\"scroll\"><table class=\"{class}\"><thead><tr>");
    for heading in results.headings() {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escaped(&heading));
    }
    out.push_str("</tr></thead><tbody>\n");
    let best: Vec<f64> = (0..results.columns.len())
        .map(|c| {
            let ours = lines.iter().filter(|line| line.kind == LineKind::Ours);
            ours.filter_map(|line| line.values[c]?.psnr).fold(f64::NEG_INFINITY, f64::max)
        })
        .collect();
    let mut i = 0;
    while i < lines.len() {
        let line = &lines[i];
        i += 1;
        let beside = |offset: usize, kind: LineKind| lines.get(i + offset).filter(|line| line.kind == kind);
        let paper = (line.kind == LineKind::Ours).then(|| beside(0, LineKind::Paper)).flatten();
        let difference = paper.and_then(|_| beside(1, LineKind::Difference));
        i += usize::from(paper.is_some()) + usize::from(difference.is_some());
        let class = if line.kind == LineKind::Ours { "" } else { " class=\"other\"" };
        let weights = line.parameters.map_or_else(String::new, thousands);
        let _ = write!(out, "<tr{class}><td>{}</td><td>{weights}</td>", escaped(&line.label));
        for (c, &best) in best.iter().enumerate() {
            let value = |line: Option<&Line>| line.and_then(|line| line.values[c]);
            let _ = write!(
                out,
                "<td>{}</td>",
                cell(value(Some(line)), value(paper), value(difference), line.kind == LineKind::Ours, best)
            );
        }
        let ours = line.seconds.map_or_else(String::new, seconds);
        let theirs = paper.and_then(|line| line.seconds);
        let theirs = theirs.map_or_else(String::new, |value| format!("<small>{}</small>", seconds(value)));
        let _ = writeln!(out, "<td>{ours}{theirs}</td></tr>");
    }
    out.push_str("</tbody></table></div>\n");
}

fn cell(value: Option<Value>, paper: Option<Value>, difference: Option<Value>, ours: bool, best: f64) -> String {
    let text = |value: &Value, kind| {
        let (main, second) = parts(value, kind);
        // On a narrow screen the second figure goes below the first.
        if second.is_empty() { escaped(&main) } else { format!("{main} <span class=\"ssim\">{second}</span>") }
    };
    let mut out = match &value {
        None => String::new(),
        Some(v) if ours && v.psnr.is_some_and(|psnr| psnr >= best - 0.005) => {
            format!("<span class=\"best\">{}</span>", text(v, LineKind::Ours))
        }
        Some(v) => text(v, LineKind::Ours),
    };
    if let Some(paper) = paper {
        let _ = write!(out, "<small>{}", text(&paper, LineKind::Paper));
        if let Some(psnr) = difference.and_then(|difference| difference.psnr) {
            let class = match psnr {
                psnr if psnr >= 0.005 => "better",
                psnr if psnr <= -0.005 => "worse",
                _ => "same",
            };
            let difference = Value { psnr: Some(psnr), ssim: None, consistency: None, partial: false };
            let _ = write!(out, " <span class=\"{class}\">{}</span>", parts(&difference, LineKind::Difference).0);
        }
        out += "</small>";
    }
    out
}

/// PSNR against the number of updates, for methods that are one but for that number.
fn curves(out: &mut String, results: &Results, set: &str) {
    let mut families: Vec<&str> = Vec::new();
    for method in &results.methods {
        let same = results.methods.iter().filter(|other| other.family == method.family).count();
        if same >= 3 && !families.contains(&method.family.as_str()) {
            families.push(&method.family);
        }
    }
    for column in &results.columns {
        let mut lines = Vec::new();
        for &family in &families {
            let point = |method: &MethodInfo| {
                let mean = results.mean(set, &column.name, &method.name)?;
                Some((method.updates? as f64, mean.psnr.filter(|psnr| psnr.is_finite())?))
            };
            let mut points: Vec<(f64, f64)> =
                results.methods.iter().filter(|method| method.family == family).filter_map(point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            if points.len() >= 3 {
                lines.push((family.replace("({})", "").replace("{}", "n"), points));
            }
        }
        if !lines.is_empty() {
            let _ = writeln!(out, "<h3>PSNR against the number of updates: {}</h3>", escaped(&column.name));
            out.push_str(&plot(&lines));
        }
    }
}

/// Curves with their names at the end. Where one begins so far below everything else that nothing could be
/// read (meta-trained weights before their first update), it comes in from below, with the figure beside it.
fn plot(lines: &[(String, Vec<(f64, f64)>)]) -> String {
    let range = |points: &mut dyn Iterator<Item = &(f64, f64)>| {
        points.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p.1), b.max(p.1)))
    };
    let (low, high) = range(&mut lines.iter().flat_map(|(_, points)| &points[1..]));
    let depth = low - (3.0 * (high - low)).max(5.0);
    let shown = |points: &[(f64, f64)]| if points[0].1 < depth { 1 } else { 0 };
    let all = || lines.iter().flat_map(|(_, points)| &points[shown(points)..]);
    let (width, height, left, right, top, bottom) = (640.0, 320.0, 58.0, 130.0, 24.0, 46.0);
    let most_x = all().map(|p| p.0).fold(1.0, f64::max);
    let (mut low, mut high) = range(&mut all());
    let step = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| (high - low) / step <= 6.0)
        .unwrap_or(20.0);
    (low, high) = ((low / step).floor() * step, ((high / step).ceil() * step).max(low + step));
    let x = |v: f64| left + (width - left - right) * v / most_x;
    let y = |v: f64| top + (height - top - bottom) * (high - v) / (high - low);
    let mut out = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"PSNR against updates\">"
    );
    let ticks = ((high - low) / step).round() as usize;
    for tick in 0..=ticks {
        let v = low + step * tick as f64;
        let digits = if step < 0.1 { 2 } else { 1 };
        let _ = write!(
            out,
            "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#dde2ea\"/>\
             <text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\">{v:.digits$}</text>",
            width - right,
            y(v),
            left - 6.0,
            y(v) + 5.0,
        );
    }
    let every = ((most_x / 10.0).ceil() as usize).max(1);
    for tick in (0..=most_x as usize).step_by(every) {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            x(tick as f64),
            height - bottom + 19.0
        );
    }
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">updates</text><text x=\"{left}\" y=\"13\">dB</text>",
        x(most_x / 2.0),
        height - 4.0
    );
    // Names must not lie over each other.
    let mut taken: Vec<f64> = Vec::new();
    for (i, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let first = shown(points);
        let mut drawn = points[first..].to_vec();
        if first > 0 {
            // Where the line crosses the lower edge.
            let ((x0, y0), (x1, y1)) = (points[0], points[1]);
            drawn.insert(0, (x0 + (x1 - x0) * (low - y0) / (y1 - y0), low));
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">from {y0:.2} dB</text>",
                x(drawn[0].0) + 8.0,
                y(low) - 6.0 - 16.0 * i as f64
            );
        }
        let path: Vec<String> = drawn.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let _ = write!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for p in &points[first..] {
            let _ = write!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>", x(p.0), y(p.1));
        }
        let end = points[points.len() - 1];
        let mut at = y(end.1) + 5.0;
        while taken.iter().any(|other| (other - at).abs() < 16.0) {
            at += 16.0;
        }
        taken.push(at);
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{at:.1}\" style=\"fill:{colour}\">{}</text>",
            x(end.0) + 8.0,
            escaped(name)
        );
    }
    out + "</svg>\n"
}

/// Time and parameters as bars; the times' bars grow with the logarithm.
fn costs(out: &mut String, results: &Results, set: &str) {
    let lines = results.lines(set);
    let ours: Vec<(&Line, f64)> = lines
        .iter()
        .filter(|line| line.kind == LineKind::Ours)
        .filter_map(|line| Some((line, line.seconds?)))
        .collect();
    let least = ours.iter().map(|(_, s)| *s).fold(f64::INFINITY, f64::min).max(1e-4);
    let most = ours.iter().map(|(_, s)| *s).fold(least, f64::max);
    let heaviest = ours.iter().filter_map(|(line, _)| line.parameters).max().unwrap_or(0).max(1) as f64;
    if ours.len() < 2 {
        return;
    }
    out.push_str(
        "<h3>Time and weights</h3>\n<div class=\"scroll\"><table class=\"times\"><thead><tr><th scope=\"col\">method</th>\
         <th scope=\"col\" style=\"text-align:left\">seconds a picture (logarithmic)</th>\
         <th scope=\"col\" style=\"text-align:left\">weights</th></tr></thead><tbody>\n",
    );
    for (line, time) in ours {
        let share = ((time / least).max(1.0).ln() / (most / least).ln().max(1e-9)).clamp(0.0, 1.0);
        let parameters = line.parameters.unwrap_or(0);
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td style=\"text-align:left\"><span class=\"bar\" style=\"width:{:.1}rem\"></span>{}</td>\
             <td style=\"text-align:left\"><span class=\"bar\" style=\"width:{:.1}rem\"></span>{}</td></tr>",
            escaped(&line.label),
            0.2 + 5.6 * share,
            seconds(time),
            2.8 * parameters as f64 / heaviest,
            thousands(parameters)
        );
    }
    out.push_str("</tbody></table></div>\n");
}

fn pictures(out: &mut String, results: &Results, shown: &Shown) {
    let column = results.columns.iter().find(|column| column.name == shown.degradation);
    let heading = column.map_or_else(|| shown.degradation.clone(), |column| column.heading());
    let _ = writeln!(
        out,
        "<h3>{}, {}: {}</h3>\n<div class=\"pictures\">",
        escaped(&shown.set),
        escaped(&shown.image),
        escaped(&heading)
    );
    let mut figure = |png: &str, over: &str, name: &str, small: &str| {
        let _ = writeln!(
            out,
            "<figure><img alt=\"{0}\" loading=\"lazy\" src=\"data:image/png;base64,{png}\">{over}\
             <figcaption>{0}<small>{1}</small></figcaption></figure>",
            escaped(name),
            escaped(small)
        );
    };
    let kernel = column.map_or("", |column| column.kernel.as_str());
    figure(&shown.low, kernel, "small picture", "each pixel as a square");
    if let Some(truth) = &shown.truth {
        figure(truth, "", "truth", "");
    }
    for (name, png, scores) in &shown.crops {
        let small = match scores {
            Some(scores) => {
                scores.psnr.map_or_else(|| "identical".to_owned(), |psnr| format!("{psnr:.2} dB (whole picture)"))
            }
            None => String::new(),
        };
        figure(png, "", name, &small);
    }
    out.push_str("</div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_the_page() {
        assert_eq!(escaped("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
        assert_eq!(coded("`a<b`, c"), "<code>a&lt;b</code>, c");
    }

    #[test]
    fn curves_stay_inside_the_drawing() {
        let drawn = plot(&[
            ("one".into(), vec![(0.0, 30.0), (1.0, 33.3), (20.0, 33.31)]),
            ("two".into(), vec![(0.0, 33.3), (10.0, 33.3), (20.0, 33.3)]),
        ]);
        assert!(drawn.matches("<polyline").count() == 2 && !drawn.contains("NaN") && !drawn.contains("inf"));
        let circles = drawn.split("cy=\"").skip(1).map(|part| part.split('"').next().unwrap().parse::<f64>().unwrap());
        assert!(circles.into_iter().all(|y| (0.0..320.0).contains(&y)));
        assert!(!drawn.contains("from 30.00 dB"));
    }

    /// What begins far below the rest leaves the rest room.
    #[test]
    fn a_beginning_far_below_does_not_flatten_the_curves() {
        let near = vec![(1.0, 34.8), (2.0, 34.9), (20.0, 35.1)];
        let far = [vec![(0.0, 10.09)], near.clone()].concat();
        let other = ("two".to_owned(), vec![(0.0, 35.0), (10.0, 35.0), (20.0, 35.0)]);
        let (drawn, without) = (plot(&[("one".into(), far), other.clone()]), plot(&[("one".into(), near), other]));
        assert!(drawn.contains("from 10.09 dB") && !without.contains("from "));
        let heights = |drawn: &str| -> Vec<String> {
            drawn.split("cy=\"").skip(1).map(|part| part.split('"').next().unwrap().to_owned()).collect()
        };
        assert_eq!(heights(&drawn), heights(&without));
    }
}
