//! What commands give: data as the drive's initiator reads it. (SPC-4, MMC-6)

/// Bytes of a logical block.
pub const BLOCK: u64 = 2048;

/// First byte of INQUIRY's data: a CD/DVD device; and of a unit that there is not. (SPC-4, 6.6.2)
const CD_DVD: u8 = 5;
pub const NO_UNIT: u8 = 0x7f;
/// T10 vendor identification, product and its revision, of 8, 16 and 4 characters.
const VENDOR: &[u8; 8] = b"SPORE   ";
const PRODUCT: &[u8; 16] = b"CD-ROM          ";
const REVISION: &[u8; 4] = b"1   ";

/// Profiles. (MMC-6, 5.2.1)
const CD_ROM: u16 = 0x08;
const DVD_ROM: u16 = 0x10;
/// Blocks of the largest CD, of 80 minutes: what has more is a DVD.
const CD_BLOCKS: u64 = 80 * 60 * 75;
/// The lead-out's number among tracks, and where addresses by time begin. (MMC-6, 4.2.3)
const LEAD_OUT: u8 = 0xaa;
const FIRST_FRAME: u64 = 150;
/// ADR 1 and, of CONTROL, a track of data. (MMC-6, 6.26.2.1)
const DATA_TRACK: u8 = 0x14;

/// Standard INQUIRY data. (SPC-4, 6.6.2)
pub fn inquiry() -> Vec<u8> {
    // The medium can be removed; SPC-3; additional length; several commands at a time.
    let mut data = vec![CD_DVD, 0x80, 5, 2, 31, 0, 0, 2];
    data.extend(VENDOR);
    data.extend(PRODUCT);
    data.extend(REVISION);
    data
}

/// A page of vital product data, if there is one: which there are, the serial number, and what
/// tells the unit from others. (SPC-4, 7.8.15, 7.8.17, 7.8.6)
pub fn vital_product_data(page: u8, serial: &str) -> Option<Vec<u8>> {
    let content = match page {
        0 => vec![0, 0x80, 0x83],
        0x80 => serial.as_bytes().to_vec(),
        0x83 => {
            let id = [&VENDOR[..], PRODUCT, serial.as_bytes()].concat();
            // ASCII, by the vendor's identification, of the logical unit.
            [&[2, 1, 0, u8::try_from(id.len()).ok()?], &id[..]].concat()
        }
        _ => return None,
    };
    let [high, low] = u16::try_from(content.len()).ok()?.to_be_bytes();
    Some([&[CD_DVD, page, high, low], &content[..]].concat())
}

/// A list of LUNs, which are 0. (SPC-4, 6.33)
pub fn luns(count: u32) -> Vec<u8> {
    let mut data = (8 * count).to_be_bytes().to_vec();
    data.resize(8 + 8 * count as usize, 0);
    data
}

/// (MMC-6, 6.27)
pub fn capacity_10(blocks: u64) -> Vec<u8> {
    let last = u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    [last.to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat()
}

/// (SBC-3, 5.17)
pub fn capacity_16(blocks: u64) -> Vec<u8> {
    let mut data = blocks.saturating_sub(1).to_be_bytes().to_vec();
    data.extend((BLOCK as u32).to_be_bytes());
    data.resize(32, 0);
    data
}

/// A block's address, as a number or by minute, second and frame; the last that has one, of one
/// beyond. (MMC-6, 4.2.3)
fn address(block: u64, by_time: bool) -> [u8; 4] {
    if !by_time {
        return u32::try_from(block).unwrap_or(u32::MAX).to_be_bytes();
    }
    const LAST: u64 = 256 * 60 * 75 - 1;
    let frame = (block + FIRST_FRAME).min(LAST);
    [0, (frame / 75 / 60) as u8, (frame / 75 % 60) as u8, (frame % 75) as u8]
}

/// The table of contents (format 0) from a track on, or the last session (1). `None` for one that
/// a disc which is no CD has not. (MMC-6, 6.26)
pub fn toc(blocks: u64, format: u8, track: u8, by_time: bool) -> Option<Vec<u8>> {
    let entry = |number: u8, block: u64| {
        [&[0, DATA_TRACK, number, 0][..], &address(block, by_time)].concat()
    };
    let entries = match (format, track) {
        (0, 0 | 1) => [entry(1, 0), entry(LEAD_OUT, blocks)].concat(),
        (0, LEAD_OUT) => entry(LEAD_OUT, blocks),
        (1, _) => entry(1, 0),
        _ => return None,
    };
    let [high, low] = (entries.len() as u16 + 2).to_be_bytes();
    // First and last track, or session.
    Some([&[high, low, 1, 1], &entries[..]].concat())
}

/// A disc that is complete, of one session with one track. (MMC-6, 6.21.3.1)
pub fn disc_information() -> Vec<u8> {
    // Last session complete, disc finalized; first track; sessions; first and last track of the
    // last; unrestricted use.
    let mut data = vec![0, 32, 0x0e, 1, 1, 1, 1, 0x20];
    data.resize(34, 0);
    data
}

/// What is current where there is a disc of so many blocks.
fn profile(disc: Option<u64>) -> u16 {
    match disc {
        None => 0,
        Some(..=CD_BLOCKS) => CD_ROM,
        Some(_) => DVD_ROM,
    }
}

/// A feature: code, version, whether it is persistent and whether it is current, and its own data.
type Feature = (u16, u8, bool, bool, Vec<u8>);

/// The features. (MMC-6, 5.3)
fn features(disc: Option<u64>) -> [Feature; 6] {
    let profile = profile(disc);
    let one = |number: u16| {
        let [high, low] = number.to_be_bytes();
        [high, low, u8::from(number == profile), 0]
    };
    let readable = [(BLOCK as u32).to_be_bytes(), [0, 1, 0, 0]].concat();
    [
        // Profile list; core: SCSI; removable medium: a tray that locks, ejects and loads.
        (0x00, 0, true, true, [one(DVD_ROM), one(CD_ROM)].concat()),
        (0x01, 1, true, true, vec![0, 0, 0, 1, 0, 0, 0, 0]),
        (0x03, 1, true, true, vec![0x39, 0, 0, 0]),
        // Random readable, in whole blocks; CD read; DVD read.
        (0x10, 0, false, disc.is_some(), readable),
        (0x1e, 2, false, profile == CD_ROM, vec![0; 4]),
        (0x1f, 1, false, profile == DVD_ROM, vec![0; 4]),
    ]
}

/// The features from one on: all (0), those that are current (1), or that one alone (2). (MMC-6,
/// 6.5)
pub fn configuration(which: u8, first: u16, disc: Option<u64>) -> Option<Vec<u8>> {
    let wanted = |(code, _, _, current, _): &Feature| match which {
        0 => *code >= first,
        1 => *code >= first && *current,
        _ => *code == first,
    };
    if which > 2 {
        return None;
    }
    let mut descriptors = Vec::new();
    for (code, version, persistent, current, data) in features(disc).into_iter().filter(wanted) {
        let flags = version << 2 | u8::from(persistent) << 1 | u8::from(current);
        descriptors.extend(code.to_be_bytes());
        descriptors.extend([flags, data.len() as u8]);
        descriptors.extend(data);
    }
    let mut data = (descriptors.len() as u32 + 4).to_be_bytes().to_vec();
    data.extend([0, 0]);
    data.extend(profile(disc).to_be_bytes());
    data.extend(descriptors);
    Some(data)
}

/// The classes of events that there are: media. (MMC-6, 6.6.2)
const MEDIA: u8 = 4;
const CLASSES: u8 = 1 << MEDIA;

/// The answer to who asks for other classes than there are.
pub fn no_event() -> [u8; 4] {
    [0, 2, 0x80, CLASSES]
}

/// The medium's last event and whether it is there, if the media class is among those asked for.
/// (MMC-6, 6.6.2.6)
pub fn media_event(classes: u8, event: u8, open: bool) -> Option<[u8; 8]> {
    let status = if open { 1 } else { 2 };
    (classes & CLASSES != 0).then_some([0, 6, MEDIA, CLASSES, event, status, 0, 0])
}

/// A mode page, or all. Of which one can change anything, there is none. (MMC-6, 7.2.3; MMC-3,
/// 5.5.10, which drivers still ask for)
pub fn mode_pages(page: u8, locked: bool, changeable: bool) -> Option<Vec<u8>> {
    /// Read error recovery; capabilities and mechanical status; all.
    const RECOVERY: u8 = 0x01;
    const CAPABILITIES: u8 = 0x2a;
    const ALL: u8 = 0x3f;
    let recovery = [0; 10];
    let mut capabilities = [0; 18];
    // It reads DVD-ROM, locks (and whether it is), ejects, and has a tray.
    capabilities[0] = 0x08;
    capabilities[4] = 0x29 | u8::from(locked) << 1;
    let mut pages = Vec::new();
    for (code, content) in [(RECOVERY, &recovery[..]), (CAPABILITIES, &capabilities)] {
        if page == code || page == ALL {
            pages.extend([code, content.len() as u8]);
            pages.extend(content.iter().map(|byte| if changeable { 0 } else { *byte }));
        }
    }
    (!pages.is_empty()).then_some(pages)
}

/// Mode pages behind their header, which is longer in MODE SENSE (10). (SPC-4, 7.5.5)
pub fn mode_parameters(pages: &[u8], long: bool) -> Vec<u8> {
    // They are two at most.
    let len = pages.len() as u8;
    let header: &[u8] = if long { &[0, len + 6, 0, 0, 0, 0, 0, 0] } else { &[len + 3, 0, 0, 0] };
    [header, pages].concat()
}
