//! SMBIOS tables: who the machine is, for dmidecode, cloud-init and /sys/class/dmi. (DMTF DSP0134
//! 3.6)

use crate::error::{Error, Result};
use crate::mem::layout::{SMBIOS, SMBIOS_END};
use crate::mem::ram;
use crate::plan::VmPlan;

/// Bytes of the entry point, with padding: the structures follow.
const ENTRY: u64 = 0x20;
const MAKER: &str = "Spore";
const NO_HANDLE: u16 = 0xffff;
const NO_ERROR_INFORMATION: u16 = 0xfffe;

/// Handles: the type times 256, plus an index.
const CHASSIS: u16 = 0x300;
const MEMORY_ARRAY: u16 = 0x1000;

/// Most OEM strings beside [`build`]'s own two.
const MAX_OEM_STRINGS: usize = 253;

/// The entry point and the structures, to be written at [`SMBIOS`].
///
/// Type 1's serial number is the UUID's own text, as on EC2, where cloud-init looks for `ec2…`.
/// Type 2's asset tag is the instance id, as on EC2's Nitro machines; type 11 has `spore.instance=`
/// and `spore.index=`, and the plan's further strings.
///
/// # Errors
/// `plan.uuid` is not a UUID, or an OEM string none that SMBIOS can have.
pub fn build(plan: &VmPlan) -> Result<Vec<u8>> {
    let table = structures(plan)?;
    let mut bytes = entry_point(table.len() as u32);
    // Its structures begin on a boundary of 16 bytes.
    bytes.resize(ENTRY as usize, 0);
    bytes.extend(table);
    if SMBIOS + bytes.len() as u64 > SMBIOS_END {
        return Err(Error::failure(format!("SMBIOS tables of {} bytes do not fit", bytes.len())));
    }
    Ok(bytes)
}

/// The structures alone, for firmware that puts them where it likes, with an [`entry_point`].
///
/// # Errors
/// As [`build`].
pub fn structures(plan: &VmPlan) -> Result<Vec<u8>> {
    let uuid = parse_uuid(&plan.uuid)
        .ok_or_else(|| Error::failure(format!("'{}' is not a UUID", plan.uuid.escape_default())))?;
    // An empty string would end them all (6.1.3).
    let is_string = |text: &String| !text.is_empty() && !text.contains('\0');
    if plan.oem_strings.len() > MAX_OEM_STRINGS || !plan.oem_strings.iter().all(is_string) {
        return Err(Error::failure("an OEM string is empty or has a NUL, or there are too many"));
    }
    let mut table = Table::default();
    describe_system(&mut table, plan, uuid);
    describe_memory(&mut table, plan);
    // System boot information: no error. (7.33)
    table.add(32, 0x2000, &[0; 7], &[]);
    table.add(127, 0x7f00, &[], &[]);
    Ok(table.bytes)
}

fn describe_system(table: &mut Table, plan: &VmPlan, uuid: [u8; 16]) {
    let version = env!("CARGO_PKG_VERSION");
    let instance = plan.instance_id.as_str();
    // BIOS information (7.1): vendor, version, no segment, date, 64 KiB; characteristics are not
    // given (bit 3), but that it is a virtual machine (second extension byte, bit 4).
    let mut bios = vec![1, 2, 0, 0, 3, 0];
    bios.extend(8u64.to_le_bytes());
    bios.extend([0, 1 << 4, 0, 0, 0xff, 0xff, 0, 0]);
    table.add(0, 0, &bios, &[MAKER, version, "01/01/2026"]);
    // System information (7.2): strings, UUID, woken by the power switch.
    let mut system = vec![1, 2, 3, 4];
    system.extend(uuid);
    system.extend([6, 0, 5]);
    table.add(1, 0x100, &system, &[MAKER, "Spore instance", version, &plan.uuid, MAKER]);
    // Baseboard (7.3): a motherboard (10) that hosts (bit 0).
    let mut board = vec![1, 2, 0, 0, 3, 1, 0];
    board.extend(CHASSIS.to_le_bytes());
    board.extend([10, 0]);
    table.add(2, 0x200, &board, &[MAKER, "Spore instance", instance]);
    // Chassis (7.4): of another kind, all states unknown.
    let chassis = [1, 1, 0, 0, 0, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    table.add(3, CHASSIS, &chassis, &[MAKER]);
    describe_processor(table, plan.config.cpus);
    let own = [format!("spore.instance={instance}"), format!("spore.index={}", plan.launch_index)];
    let strings: Vec<&str> = own.iter().chain(&plan.oem_strings).map(String::as_str).collect();
    // OEM strings (7.12), of which there is a byte's number.
    table.add(11, 0xb00, &[strings.len() as u8], &strings);
}

/// Processor information (7.5): one populated, enabled socket with a core for each vCPU.
fn describe_processor(table: &mut Table, cpus: u8) {
    let mut cpu = vec![1, 3, 2, 2]; // socket, central processor, family unknown, manufacturer
    cpu.extend([0; 8]); // what CPUID says, CPUID says better
    cpu.extend([0, 0, 0, 0, 0, 0, 0, 0]); // version, voltage, external clock, maximum and current speed
    cpu.extend([0x41, 2]); // enabled; upgrade unknown
    for _ in 0..3 {
        cpu.extend(NO_HANDLE.to_le_bytes()); // no cache is described
    }
    cpu.extend([0, 0, 0, cpus, cpus, cpus]); // serial, asset, part; cores, enabled cores, threads
    cpu.extend([0x04, 0, 2, 0]); // 64-bit capable; family 2 unknown
    for _ in 0..3 {
        cpu.extend(u16::from(cpus).to_le_bytes());
    }
    table.add(4, 0x400, &cpu, &["CPU 0", MAKER]);
}

/// Physical memory array, memory device and mapped addresses (7.17, 7.18, 7.20).
fn describe_memory(table: &mut Table, plan: &VmPlan) {
    let mut array = vec![1, 3, 3]; // location other, system memory, no error correction
    array.extend(0x8000_0000u32.to_le_bytes()); // see the extended capacity
    array.extend(NO_ERROR_INFORMATION.to_le_bytes());
    array.extend(1u16.to_le_bytes());
    array.extend(plan.config.memory.to_le_bytes());
    table.add(16, MEMORY_ARRAY, &array, &[]);

    let mib = plan.config.memory >> 20;
    let mut device = Vec::new();
    for field in [MEMORY_ARRAY, NO_ERROR_INFORMATION, NO_HANDLE, NO_HANDLE] {
        device.extend(field.to_le_bytes()); // array; error information; widths unknown
    }
    device.extend((mib.min(0x7fff) as u16).to_le_bytes()); // 0x7fff: see the extended size
    device.extend([9, 0, 1, 0, 7, 4, 0, 0, 0]); // a DIMM of RAM; type detail unknown, speed unknown
    device.extend([2, 0, 0, 0, 0]); // manufacturer; serial, asset, part; rank unknown
    device.extend((mib as u32).to_le_bytes());
    device.extend([0; 8]); // speed and voltages unknown
    table.add(17, 0x1100, &device, &["DIMM 0", MAKER]);

    for (n, (start, len)) in ram::ranges(plan.config.memory).enumerate() {
        let mut range = vec![0xff; 8]; // see the extended addresses
        range.extend(MEMORY_ARRAY.to_le_bytes());
        range.push(1);
        range.extend(start.to_le_bytes());
        range.extend((start + len - 1).to_le_bytes());
        table.add(19, 0x1300 + n as u16, &range, &[]);
    }
}

#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
}

impl Table {
    /// One structure: header, formatted area, strings each with a NUL, and one NUL more (two if
    /// there are no strings). (6.1.2, 6.1.3)
    fn add(&mut self, kind: u8, handle: u16, formatted: &[u8], strings: &[&str]) {
        self.bytes.extend([kind, 4 + formatted.len() as u8]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(formatted);
        for string in strings {
            self.bytes.extend(string.as_bytes());
            self.bytes.push(0);
        }
        self.bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
    }
}

/// The 64-bit entry point (5.2.2) to `len` bytes of structures that follow it.
pub fn entry_point(len: u32) -> Vec<u8> {
    let mut entry = b"_SM3_\0\x18\x03\x03\x00\x01\x00".to_vec(); // checksum, length, version 3.3, revision 1
    entry.extend(len.to_le_bytes());
    entry.extend((SMBIOS + ENTRY).to_le_bytes());
    entry[5] = entry.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    entry
}

/// RFC 4122's text as SMBIOS stores it: the first three fields little-endian. (7.2.1)
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    if !groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) || !text.is_ascii() {
        return None;
    }
    let hex: String = groups.concat();
    let mut uuid = [0; 16];
    for (n, byte) in uuid.iter_mut().enumerate() {
        let digits = &hex[2 * n..2 * n + 2];
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    for field in [0..4, 4..6, 6..8] {
        uuid[field].reverse();
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::tests::plan;

    /// (type, handle, formatted area, strings) of every structure, parsed as section 6.1 says.
    fn structures(bytes: &[u8]) -> Vec<(u8, u16, Vec<u8>, Vec<String>)> {
        let mut rest = &bytes[ENTRY as usize..];
        let mut found = Vec::new();
        while let [kind, len, low, high, ..] = *rest {
            let formatted = rest[4..usize::from(len)].to_vec();
            rest = &rest[usize::from(len)..];
            let end = rest.windows(2).position(|pair| pair == [0, 0]).unwrap();
            let strings = rest[..end].split(|byte| *byte == 0).filter(|s| !s.is_empty());
            let strings = strings.map(|s| String::from_utf8(s.to_vec()).unwrap()).collect();
            found.push((kind, u16::from_le_bytes([low, high]), formatted, strings));
            rest = &rest[end + 2..];
        }
        found
    }

    #[test]
    fn structures_have_the_specified_lengths_and_end_with_127() {
        let found = structures(&build(&plan(5 << 30)).unwrap());
        let lengths: Vec<_> = found.iter().map(|(kind, _, f, _)| (*kind, 4 + f.len())).collect();
        assert_eq!(
            lengths,
            [
                (0, 0x1a),
                (1, 0x1b),
                (2, 0x0f),
                (3, 0x16),
                (4, 0x30),
                (11, 5),
                (16, 0x17),
                (17, 0x28),
                (19, 0x1f),
                (19, 0x1f),
                (32, 0x0b),
                (127, 4)
            ]
        );
        let mut handles: Vec<_> = found.iter().map(|(_, handle, ..)| *handle).collect();
        handles.dedup();
        assert_eq!(handles.len(), found.len());
    }

    #[test]
    fn the_serial_is_the_uuid_and_the_asset_tag_the_instance() {
        let plan = plan(16 << 20);
        let bytes = build(&plan).unwrap();
        let found = structures(&bytes);
        let system = &found[1];
        assert_eq!(system.3[usize::from(system.2[3]) - 1], plan.uuid);
        assert_eq!(system.2[4..8], [0x7a, 0x1e, 0x2d, 0xec]); // ec2d1e7a, little-endian
        let board = &found[2];
        assert_eq!(board.3[usize::from(board.2[4]) - 1], plan.instance_id.as_str());
        let oem = [format!("spore.instance={}", plan.instance_id), "spore.index=2".into()];
        assert_eq!(found[5].3, oem);
    }

    #[test]
    fn oem_strings_follow_those_of_every_machine() {
        let more = |strings: &[&str]| {
            let oem_strings = strings.iter().map(|&text| text.to_owned()).collect();
            build(&VmPlan { oem_strings, ..plan(16 << 20) })
        };
        let found = structures(&more(&["io.systemd.credential:a=b", "c"]).unwrap());
        let oem = found.iter().find(|structure| structure.0 == 11).unwrap();
        assert_eq!(oem.2, [4]);
        assert_eq!(oem.3[2..], ["io.systemd.credential:a=b", "c"]);
        assert!(more(&["a"; 253]).is_ok());
        for bad in [&[""][..], &["a", ""], &["a\0b"], &["a"; 254], &[&"a".repeat(1 << 16)]] {
            assert!(more(bad).is_err(), "{}", bad.len());
        }
    }

    #[test]
    fn the_entry_point_sums_to_zero_and_points_at_the_structures() {
        let bytes = build(&plan(16 << 20)).unwrap();
        assert_eq!(bytes[..0x18].iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
        let max = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
        assert_eq!(max as usize, bytes.len() - ENTRY as usize);
        assert_eq!(u64::from_le_bytes(bytes[16..24].try_into().unwrap()), SMBIOS + ENTRY);
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for bad in [
            "",
            "ec2",
            "ec2d1e7a-0000-4000-8000-00000000000",
            "ec2d1e7a-0000-4000-8000-00000000000g",
            "+c2d1e7a-0000-4000-8000-000000000000",
            "ec2d1e7-a0000-4000-8000-000000000000",
            "éc2d1e7-0000-4000-8000-000000000000",
        ] {
            let plan = VmPlan { uuid: bad.into(), ..plan(16 << 20) };
            assert!(build(&plan).is_err(), "{bad}");
        }
    }
}
