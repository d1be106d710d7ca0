//! What the boot menu on an image's root has.

use crate::disk::Disk;
use crate::error::{Code, Error, OrFail, Result};
use crate::id::InstanceId;
use crate::plan::{PvBoot, PvGrub};
use crate::pvgrub::Child;
use crate::record::image::Image;
use crate::snapshot;
use crate::store::Store;

pub use crate::pvgrub::Listed;

/// The path of the menu on the image's root, and its entries.
///
/// # Errors
/// The image has no root snapshot, or there is no menu on it that can be read.
pub fn list(store: &Store, image: &Image) -> Result<(String, Vec<Listed>)> {
    let id = image.root_snapshot().ok_or_else(|| {
        Error::refused(
            Code::InvalidParameterValue,
            format!("image '{}' has no snapshot as its root", image.name),
        )
    })?;
    let layers = snapshot::open_layers(store, &store.snapshots().get(id)?)?;
    let disk = Disk::open(layers).or_fail(|| format!("read {id}"))?;
    let boot = PvBoot {
        from: image.kernel_id.as_ref().and_then(PvGrub::of).unwrap_or(PvGrub::Any),
        entry: None,
        append: String::new(),
        instance_id: InstanceId::generate()?,
        launch_index: 0,
        saved: None,
    };
    let listed = Child::start()?.list(&disk, &boot);
    listed.map_err(|error| error.context(format!("image '{}'", image.name)))
}
