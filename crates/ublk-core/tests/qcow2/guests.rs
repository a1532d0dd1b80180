//! Overlays on images.

use std::fs;
use std::path::Path;

use ublk_core::error::Code;
use ublk_core::targets::file::Direct;
use ublk_core::targets::native::Native;
use ublk_core::targets::overlay::{
    Overlay, OverlayOptions, check_no_base, commit_into_base, create, export, tree,
};
use ublk_core::targets::{Boot, Progress, Target};

use super::tools::{Folder, contents};

impl Folder {
    fn base(&self, image: &str) -> Native {
        Native::Qcow2(Box::new(self.open(image).unwrap()))
    }

    fn serve(&self, image: &str, layer: &Path) -> ublk_core::error::Result<Overlay> {
        let options = OverlayOptions {
            history: Some(self.path.clone()),
            direct: Direct::No,
            boot: Some(Boot::of_machine().unwrap()),
            ..OverlayOptions::default()
        };
        Overlay::open(self.base(image), layer, &options)
    }

    /// A chain of three and a layer.
    fn chain() -> Self {
        let folder = Self::new();
        fs::write(folder.at("raw"), [3; 1 << 20]).unwrap();
        folder.run("qemu-img create -q -f qcow2 -o cluster_size=512 -b raw -F raw middle 2M");
        folder.run("qemu-img create -q -f qcow2 -b middle -F qcow2 top 4M");
        let commands = (0..600).map(|number| format!("write -P 5 {} 512", number * 1536));
        folder.change("middle", &commands.collect::<Vec<_>>());
        folder.change("top", &["write -P 6 1M 1M".into()]);
        create(&folder.base("top"), &folder.at("layer"), None).unwrap();
        folder
    }
}

#[test]
fn an_export_of_a_disk_on_a_chain_is_what_qemu_reads() {
    let folder = Folder::chain();
    let (layer, out) = (folder.at("layer"), folder.at("out"));
    let made = export(&folder.base("top"), &layer, &out, false, &Progress::default()).unwrap();
    assert!(fs::read(&out).unwrap() == folder.converted("top"));
    assert!(made.written <= 2 << 20 && made.size == 4 << 20, "{made:?}");
    folder.run("qemu-img compare -f raw -F qcow2 out top");
}

#[test]
fn a_disk_on_an_image_has_the_blocks_of_the_image() {
    let folder = Folder::chain();
    let overlay = folder.serve("top", &folder.at("layer")).unwrap();
    assert_eq!(overlay.geometry().size, 4 << 20);
    let all = contents(&folder.open("top").unwrap());
    assert_eq!(contents(&overlay), all);
}

#[test]
fn an_image_that_has_changed_is_no_longer_the_base() {
    for changed in ["raw", "middle", "top"] {
        let folder = Folder::chain();
        folder.serve("top", &folder.at("layer")).unwrap();
        let format = if changed == "raw" { "raw" } else { "qcow2" };
        folder.run_words("qemu-io", &["-f", format, "-c", "write -P 9 512k 4k", changed]);
        let error = folder.serve("top", &folder.at("layer")).unwrap_err();
        assert_eq!(error.code, Code::BadBackend);
        assert!(error.message.contains("was modified since"), "{error}");
    }
}

#[test]
fn every_file_of_a_base_is_guarded_and_the_base_is_the_image() {
    let folder = Folder::chain();
    let layer = folder.at("layer");
    for part in ["raw", "middle", "top"] {
        let error = check_no_base(&folder.at(part)).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains(layer.to_str().unwrap()), "{error}");
    }
    fs::write(folder.at("other"), "data").unwrap();
    check_no_base(&folder.at("other")).unwrap();
    let [branch] = &tree(&folder.path).unwrap()[..] else { panic!("one layer") };
    assert_eq!(branch.below, Some(folder.at("top")));
    fs::remove_file(&layer).unwrap();
    check_no_base(&folder.at("raw")).unwrap();
}

#[test]
fn a_backing_file_in_another_folder_than_the_image_is_guarded() {
    let folder = Folder::new();
    fs::write(folder.at("raw"), [3; 1 << 20]).unwrap();
    fs::create_dir(folder.at("elsewhere")).unwrap();
    folder.run("qemu-img create -q -f qcow2 -b ../raw -F raw elsewhere/image");
    let layer = folder.at("elsewhere/layer");
    create(&folder.base("elsewhere/image"), &layer, None).unwrap();
    let error = check_no_base(&folder.at("raw")).unwrap_err();
    assert!(error.message.contains(layer.to_str().unwrap()), "{error}");
    fs::remove_file(&layer).unwrap();
    check_no_base(&folder.at("raw")).unwrap();
}

#[test]
fn a_commit_never_writes_into_an_image_as_if_it_were_raw() {
    let folder = Folder::chain();
    let before = fs::read(folder.at("top")).unwrap();
    let committed = commit_into_base(&folder.at("top"), &folder.at("layer"), &Progress::default());
    let error = committed.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains("only reads"), "{error}");
    assert!(fs::read(folder.at("top")).unwrap() == before);
}

#[test]
fn the_size_of_an_image_below_an_overlay_is_whole_blocks() {
    let folder = Folder::new();
    folder.run("qemu-img create -q -f qcow2 image 1049088");
    let error = create(&folder.base("image"), &folder.at("layer"), None).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.hint.unwrap().contains("qemu-img resize IMAGE 1052672"));
}
