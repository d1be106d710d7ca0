//! CreateImage: of a running or stopped instance.

use super::{Service, instances};
use crate::error::Result;
use crate::id::ImageId;
use crate::instance::create_image;
pub use crate::instance::create_image::{CreateImage, Created, DeviceChange};

impl Service {
    /// EC2 CreateImage. `begun` is told the image's id once the image is pending; its failure
    /// undoes it.
    ///
    /// # Errors
    /// The instance is unknown; as [`create_image::create`]'s.
    pub fn create_image(
        &self,
        instance_id: &str,
        request: CreateImage,
        begun: impl FnOnce(&ImageId) -> Result<()>,
    ) -> Result<Created> {
        let store = self.swept();
        let dir = instances::find(store, instance_id)?;
        create_image::create(store, &dir, request, begun)
    }
}
