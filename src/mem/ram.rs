//! Guest RAM as vm-memory's mappings.

use std::sync::Arc;

/// Guest RAM. Cheap to clone; the mapping lives as long as any clone.
pub type GuestRam = Arc<vm_memory::GuestMemoryMmap>;
