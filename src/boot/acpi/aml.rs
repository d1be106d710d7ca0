//! What all tables have, and pieces of AML.

use acpi_tables::Aml;
use acpi_tables::aml::Name;

/// The tables' OEM id. (ACPI 6.5, 5.2.6)
pub const OEM: [u8; 6] = *b"SPORE ";
/// Their OEM table id.
pub const TABLE: [u8; 8] = *b"INSTANCE";
/// Their OEM revision.
pub const REVISION: u32 = 1;

/// AML of one device, apart from the tree it belongs in.
pub struct Encoded(pub Vec<u8>);

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// The AML of `object`.
pub fn encode(object: &dyn Aml) -> Encoded {
    // Most objects are shorter: a guest's start waits for no second allocation.
    let mut bytes = Vec::with_capacity(256);
    object.to_aml_bytes(&mut bytes);
    Encoded(bytes)
}

/// An object called `path`.
pub fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(path.into(), value)
}
