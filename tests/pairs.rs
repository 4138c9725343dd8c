//! Which input goes to which output, and how files are put there.

use mzsr::image::paths::{Pair, is_image, pair};
use mzsr::image::{Format, Photo, PixelKind, WriteOptions};
use std::fs;
use std::path::{Path, PathBuf};

fn touch(folder: &Path, names: &[&str]) {
    names.iter().for_each(|name| fs::write(folder.join(name), b"x").unwrap());
}

fn names(pairs: &[Pair]) -> Vec<String> {
    pairs.iter().map(|p| p.output.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn one_photo_goes_to_a_file_or_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    touch(at, &["a.png"]);
    fs::create_dir(at.join("there")).unwrap();
    let one = |output: PathBuf| pair(&[at.join("a.png")], &output).map(|mut pairs| pairs.remove(0).output);
    assert_eq!(one(at.join("b.jpg")).unwrap(), at.join("b.jpg"));
    assert_eq!(one(at.join("there")).unwrap(), at.join("there/a.png"));
    assert_eq!(one(at.join("new/")).unwrap(), at.join("new/a.png"));
    assert!(at.join("new").is_dir());
    assert_eq!(one("-".into()).unwrap(), Path::new("-"));
    assert!(one(at.join("a.png")).unwrap_err().to_string().contains("overwritten"));
    assert!(one(at.join("there/../a.png")).is_err());
    assert!(one(at.to_owned()).is_err(), "into its own folder");
    let stdin = pair(&["-".into()], Path::new("x.png")).unwrap();
    assert_eq!(stdin, [Pair { input: "-".into(), output: "x.png".into() }]);
    assert!(pair(&["-".into()], &at.join("there")).is_err(), "no name");
    assert!(pair(&["-".into(), "-".into()], &at.join("there")).is_err());
    assert!(pair(&[], Path::new("x.png")).is_err());
}

#[test]
fn folders_and_several_photos_go_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    touch(at, &["b.PNG", "a.jpeg", "c.tif", ".hidden.png", "notes.txt", "d.gif"]);
    fs::create_dir(at.join("inner.png")).unwrap();
    let out = at.join("out");
    let pairs = pair(&[at.to_owned()], &out).unwrap();
    assert_eq!(names(&pairs), ["a.jpeg", "b.PNG", "c.tif"]);
    assert!(out.is_dir());
    let pairs = pair(&[at.join("d.gif"), at.join("a.jpeg")], &out).unwrap();
    assert_eq!(names(&pairs), ["d.gif.png", "a.jpeg"]);
    let two = [at.join("a.jpeg"), at.join("b.PNG")];
    assert!(pair(&two, Path::new("-")).is_err());
    assert!(pair(&two, &at.join("notes.txt")).unwrap_err().to_string().contains("is a file"));
    assert!(pair(&two, &at.join("x.png")).unwrap_err().to_string().contains("looks like a file"));
    assert!(!at.join("x.png").exists());
    assert!(pair(&two, at).is_err(), "onto themselves");
    assert!(pair(&[at.join("a.jpeg"), at.to_owned()], &out).unwrap_err().to_string().contains("both"));
    let empty = at.join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(pair(&[empty], &out).unwrap_err().to_string().contains("no PNG"));
    assert!(is_image(Path::new("x.TIFF")) && is_image(Path::new("x.WebP")));
    assert!(!is_image(Path::new("x.gif")) && !is_image(Path::new("png")));
}

#[test]
fn files_are_written_whole_under_normal_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let photo = Photo::new(PixelKind::new(false, false, false), Format::Bmp, 3, 4);
    for name in ["a.png", "a.jpg", "a.JPEG", "a.webp", "a.tif", "a.tiff", "a.bmp"] {
        let path = at.join(name);
        Photo::check_output(&path).unwrap();
        assert!(!path.exists());
        photo.write(&path, &WriteOptions::default()).unwrap();
        let back = Photo::read(&path).unwrap();
        assert_eq!((back.height(), back.width(), Some(back.format())), (3, 4, Format::of_path(&path)));
    }
    // By content, not by name.
    fs::rename(at.join("a.webp"), at.join("b.png")).unwrap();
    assert_eq!(Photo::read(&at.join("b.png")).unwrap().format(), Format::WebP);
    assert_eq!(fs::read_dir(at).unwrap().count(), 7, "nothing else is left behind");
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        fs::write(at.join("plain"), b"").unwrap();
        let mode = |name: &str| fs::metadata(at.join(name)).unwrap().permissions().mode();
        assert_eq!(mode("a.png"), mode("plain"));
        fs::set_permissions(at.join("a.png"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("a.png", at.join("link.png")).unwrap();
        photo.write(&at.join("link.png"), &WriteOptions::default()).unwrap();
        assert!(at.join("link.png").is_symlink());
        assert_eq!(mode("a.png") & 0o777, 0o600, "a file that is replaced keeps its permissions");
    }
}

#[test]
fn outputs_that_cannot_be_are_refused_before_work() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str| Photo::check_output(&folder.path().join(name)).unwrap_err().to_string();
    assert!(refused("a.gif").contains("must end in"));
    assert!(refused("a").contains("must end in"));
    assert!(refused("missing/a.png").contains("does not exist"));
    fs::create_dir(folder.path().join("f.png")).unwrap();
    assert!(refused("f.png").contains("is a folder"));
    Photo::check_output(Path::new("-")).unwrap();
    Photo::check_size(Path::new("a.png"), Format::WebP, 20_000, 70_000).unwrap();
    assert!(Photo::check_size(Path::new("a.jpg"), Format::Png, 20_000, 70_000).is_err());
    assert!(Photo::check_size(Path::new("a.webp"), Format::Png, 20_000, 1).is_err());
    assert!(Photo::check_size(Path::new("-"), Format::WebP, 20_000, 1).is_err());
    let wide = Photo::new(PixelKind::new(true, false, false), Format::Png, 1, 70_000);
    let message = wide.write(&folder.path().join("a.jpg"), &WriteOptions::default()).unwrap_err().to_string();
    assert!(message.contains("65535"), "{message}");
    assert!(!folder.path().join("a.jpg").exists());
}
