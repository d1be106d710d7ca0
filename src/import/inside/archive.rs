//! The one disk in an archive: tar, an OVA (a tar with an OVF that names its disks), zip.

use super::super::format::{self, HEAD, What};
use super::super::stream::{Stream, unreadable};
use super::source::Window;
use super::sparse::Map;
use crate::error::{Error, Result};
use crate::helper::one_line;
use crate::import::others::{refused, unsupported};
use percent_encoding::percent_decode_str;
use quick_xml::XmlVersion;
use quick_xml::events::Event;
use std::borrow::Cow;
use std::io::{self, Read};

/// Who looks at what an archive has.
pub(super) trait Nested {
    /// Look at what can be read at any place. `depth` is how often it is packed in something else.
    ///
    /// # Errors
    /// It is no disk, or can't be read.
    fn window(&mut self, window: Window, depth: u32) -> Result<()>;
    /// Look at bytes in order.
    ///
    /// # Errors
    /// As [`Nested::window`]'s.
    fn stream(&mut self, stream: Stream<'_>, depth: u32) -> Result<()>;
}

/// Most bytes of an OVF.
const MAX_OVF: u64 = 4 << 20;
/// Most names that are kept, for saying what an archive is.
const MAX_NAMES: usize = 1000;
/// Most files of an archive.
const MAX_FILES: usize = 1_000_000;
/// What names of disks end with.
const SUFFIXES: [&str; 10] =
    [".ova", ".raw", ".img", ".qcow2", ".qcow", ".vmdk", ".vhd", ".vhdx", ".vdi", ".hdd"];
/// What may follow that.
const PACKED: [&str; 7] = [".gz", ".xz", ".zst", ".lz4", ".bz2", ".lzma", ".zip"];

/// What is known of an archive so far.
#[derive(Default)]
struct Found {
    /// The name of the disk that an OVF names.
    ovf: Option<String>,
    taken: Option<String>,
    names: Vec<String>,
}

impl Found {
    fn name(&mut self, name: &[u8]) -> Result<String> {
        let name = String::from_utf8_lossy(name).into_owned();
        if self.names.len() < MAX_NAMES {
            self.names.push(name.trim_start_matches("./").to_owned());
        }
        Ok(name)
    }

    /// Whether the file of that name, which begins with `head`, is the disk.
    fn is_disk(&mut self, name: &str, head: &[u8]) -> Result<bool> {
        let base = base(name);
        let is = match &self.ovf {
            Some(disk) => is_named(base, disk),
            None => looks_like_a_disk(base, head),
        };
        if !is {
            return Ok(false);
        }
        if let Some(first) = &self.taken {
            return Err(several(&[first, name]));
        }
        self.taken = Some(name.to_owned());
        Ok(true)
    }

    fn ovf(&mut self, from: &mut dyn Read) -> Result<()> {
        let mut text = Vec::new();
        from.take(MAX_OVF).read_to_end(&mut text).map_err(unreadable)?;
        let disk = disk_of(&text)?;
        match &self.taken {
            Some(taken) if !is_named(base(taken), &disk) => Err(several(&[taken, &disk])),
            _ => {
                self.ovf = Some(disk);
                Ok(())
            }
        }
    }

    /// # Errors
    /// There was no disk: what there was.
    fn done(self) -> Result<()> {
        match (self.taken, self.ovf) {
            (Some(_), _) => Ok(()),
            (None, Some(disk)) => Err(refused(format!(
                "its OVF names the disk '{}', which is not in it; fetch it again",
                one_line(&disk, 100)
            ))),
            (None, None) => Err(identify(&self.names)),
        }
    }
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether a file's name is what an OVF calls it, by a URI or by the name itself. (DSP0243, 7.1)
fn is_named(base: &str, href: &str) -> bool {
    base == href || percent_decode_str(href).eq(base.bytes())
}

fn several(names: &[&str]) -> Error {
    let names: Vec<String> =
        names.iter().map(|name| format!("'{}'", one_line(name, 100))).collect();
    refused(format!(
        "it has several disks: {}; take out the one to import, and import that",
        names.join(", ")
    ))
}

/// By its name, or by a format of disks.
fn looks_like_a_disk(base: &str, head: &[u8]) -> bool {
    let base = base.to_lowercase();
    // Copies of macOS's attributes, and initial ramdisks.
    let others = ["._", "initrd", "initramfs"];
    if others.iter().any(|name| base.starts_with(name)) || head.is_empty() {
        return false;
    }
    let stem = PACKED.iter().find_map(|packed| base.strip_suffix(packed)).unwrap_or(&base);
    let format = format::what(head, None);
    SUFFIXES.iter().any(|suffix| stem.ends_with(suffix))
        || matches!(format, Ok(What::Disk(format)) if format != format::SourceFormat::Raw)
}

/// What an archive without a disk is.
fn identify(names: &[String]) -> Error {
    let has = |name: &str| names.iter().any(|found| found == name);
    let below = |dir: &str| names.iter().any(|found| found.starts_with(dir));
    let roots = ["etc/", "usr/", "bin", "lib", "var/", "sbin"];
    if has("oci-layout") || (has("manifest.json") && (has("repositories") || below("blobs/"))) {
        return unsupported(
            "a container's image, and containers have no disk",
            "import a virtual machine's",
        );
    }
    if has("manifest.json") && names.iter().any(|name| name.ends_with(".tar")) {
        return unsupported(
            "a container's image, and containers have no disk",
            "import a virtual machine's",
        );
    }
    if has("metadata.yaml") {
        return unsupported(
            "an Incus or LXD container's image, without a disk",
            "import a virtual machine's",
        );
    }
    if roots.iter().filter(|root| below(root)).count() >= 3 {
        return unsupported(
            "the files of a root file system, and no disk",
            "make a disk of them, as virt-make-fs does",
        );
    }
    let first: Vec<String> = names.iter().take(3).map(|name| one_line(name, 60)).collect();
    let what = match first.is_empty() {
        true => "an empty archive".to_owned(),
        false => format!("an archive without a disk; it has {}", first.join(", ")),
    };
    unsupported(&what, "import the disk itself")
}

fn broken(cause: io::Error) -> Error {
    if cause.raw_os_error().is_some() {
        return Error::io("read the archive", cause);
    }
    let why = one_line(&cause.to_string(), 200);
    refused(format!("the archive can't be read: {why}; it is damaged or cut short: fetch it again"))
}

/// An archive that can be read at any place.
pub(super) fn tar_file(look: &mut dyn Nested, window: &Window, depth: u32) -> Result<()> {
    let mut archive = tar::Archive::new(window.reader());
    let entries = archive.entries_with_seek().map_err(broken)?;
    tar(look, entries, Some(window), depth)
}

/// One that comes in order. It is read beyond its own end: what it is packed in has its checksum
/// there, and whoever writes into a pipe is let finish.
pub(super) fn tar_stream(look: &mut dyn Nested, stream: Stream<'_>, depth: u32) -> Result<()> {
    let mut archive = tar::Archive::new(stream);
    let entries = archive.entries().map_err(broken)?;
    tar(look, entries, None, depth)?;
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(|_| ()).map_err(unreadable)
}

fn tar<R: Read>(
    look: &mut dyn Nested,
    entries: tar::Entries<'_, R>,
    window: Option<&Window>,
    depth: u32,
) -> Result<()> {
    let mut found = Found::default();
    for entry in entries.take(MAX_FILES) {
        let mut entry = entry.map_err(broken)?;
        let name = found.name(&entry.path_bytes())?;
        let kind = entry.header().entry_type();
        let holes = Map::of(&mut entry).map_err(broken)?;
        if !(kind.is_file() || kind.is_gnu_sparse() || kind.is_contiguous()) {
            continue;
        }
        if name.ends_with(".ovf") && found.ovf.is_none() {
            found.ovf(&mut entry)?;
            continue;
        }
        let (position, size) = (entry.raw_file_position(), entry.size());
        let is_stored_whole = holes.is_none() && !kind.is_gnu_sparse();
        let mut stream = match holes {
            Some(map) => Stream::new(map.filled(entry).map_err(broken)?),
            None => Stream::new(entry),
        };
        if !found.is_disk(&name, stream.peek(HEAD).map_err(broken)?)? {
            continue;
        }
        match window.filter(|_| is_stored_whole) {
            Some(window) => {
                drop(stream);
                let part = window.part(position, size);
                if part.is_short(size) {
                    return Err(broken(io::ErrorKind::UnexpectedEof.into()));
                }
                look.window(part, depth + 1)?;
            }
            None => look.stream(stream, depth + 1)?,
        }
    }
    found.done()
}

/// A zip archive.
pub(super) fn zip(look: &mut dyn Nested, window: &Window, depth: u32) -> Result<()> {
    let broken = |cause: zip::result::ZipError| match cause {
        zip::result::ZipError::Io(cause) => broken(cause),
        zip::result::ZipError::UnsupportedArchive(why) => {
            refused(format!("the archive can't be read: {why}; unpack it first"))
        }
        zip::result::ZipError::CompressionMethodNotSupported(method) => {
            refused(format!("the archive has compression method {method}; unpack it first"))
        }
        other => broken(io::Error::other(other.to_string())),
    };
    let mut found = Found::default();
    let mut archive = zip::ZipArchive::new(io::BufReader::new(window.reader())).map_err(broken)?;
    for index in 0..archive.len().min(MAX_FILES) {
        let mut file = archive.by_index(index).map_err(broken)?;
        let name = found.name(file.name_raw())?;
        if !file.is_file() || name.starts_with("__MACOSX/") {
            continue;
        }
        if name.ends_with(".ovf") && found.ovf.is_none() {
            found.ovf(&mut file)?;
            continue;
        }
        let mut stream = Stream::new(file);
        if found.is_disk(&name, stream.peek(HEAD).map_err(unreadable)?)? {
            look.stream(stream, depth + 1)?;
        }
    }
    found.done()
}

/// A file that an OVF names.
struct OvfFile {
    id: Option<String>,
    href: String,
    /// It comes in several pieces.
    is_chunked: bool,
}

/// What an OVF calls the file of the one disk that it describes. (DMTF DSP0243, 7.1 and 9.1)
fn disk_of(text: &[u8]) -> Result<String> {
    let broken = |why: String| {
        refused(format!("its OVF can't be read: {}; fetch it again", one_line(&why, 200)))
    };
    let mut reader = quick_xml::Reader::from_reader(text);
    let (mut files, mut disks) = (Vec::new(), Vec::new());
    loop {
        match reader.read_event().map_err(|e| broken(e.to_string()))? {
            Event::Start(element) | Event::Empty(element) => {
                let attribute = |wanted: &[u8]| {
                    let mut all = element.attributes().flatten();
                    let found = all.find(|found| found.key.local_name().as_ref() == wanted)?;
                    let value = found.normalized_value(XmlVersion::Implicit1_0);
                    Some(Cow::into_owned(
                        value.map_or_else(|_| String::from_utf8_lossy(&found.value), Into::into),
                    ))
                };
                match element.local_name().as_ref() {
                    b"File" => files.push(OvfFile {
                        id: attribute(b"id"),
                        href: attribute(b"href").unwrap_or_default(),
                        is_chunked: attribute(b"chunkSize").is_some(),
                    }),
                    // One without a file is made empty.
                    b"Disk" => disks.extend(attribute(b"fileRef")),
                    _ => {}
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let file = |disk: &String| files.iter().find(|file| file.id.as_ref() == Some(disk));
    match &disks[..] {
        [] => Err(refused("its OVF describes no disk; import a virtual machine that has one")),
        [one] => disk_file(file(one).ok_or_else(|| broken("its disk refers to no file".into()))?),
        more => {
            let names = more.iter().take(4).filter_map(file).map(|file| base(&file.href));
            Err(several(&names.collect::<Vec<_>>()))
        }
    }
}

/// # Errors
/// An archive has it in pieces, or not at all.
fn disk_file(file: &OvfFile) -> Result<String> {
    let name = one_line(&file.href, 100);
    if file.is_chunked {
        return Err(refused(format!(
            "it has the disk '{name}' in pieces; unpack it, join them in their order by cat, and import that"
        )));
    }
    if file.href.contains("://") {
        return Err(refused(format!(
            "its disk is not in it but at '{name}'; download that, and import it"
        )));
    }
    Ok(base(&file.href).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_disk_of_an_ovf_is_found() {
        let ovf = |disks: &str| {
            format!(
                "<?xml version='1.0'?><Envelope xmlns:ovf='x'><References><File ovf:id='f1' ovf:href='a.vmdk'/>\
                 <File ovf:id='f2' ovf:href='b.iso'/></References><DiskSection>{disks}</DiskSection></Envelope>"
            )
        };
        let disk = |text: &str| disk_of(ovf(text).as_bytes());
        let one = "<Disk ovf:diskId='d' ovf:fileRef='f1' ovf:capacity='1'/>";
        assert_eq!(disk(one).unwrap(), "a.vmdk");
        assert_eq!(disk(&format!("{one}<Disk ovf:diskId='empty'/>")).unwrap(), "a.vmdk");
        let two = format!("{one}<Disk ovf:diskId='e' ovf:fileRef='f2'/>");
        assert!(disk(&two).unwrap_err().message().contains("several disks"));
        assert!(disk("").unwrap_err().message().contains("no disk"));
        assert!(disk("<Disk ovf:fileRef='f9'/>").is_err());
        // Its attributes are XML's, and a URI.
        let named = |href: &str| disk_of(ovf(one).replace("'a.vmdk'", href).as_bytes());
        assert!(is_named("a&b 1.vmdk", &named("'a&amp;b 1.vmdk'").unwrap()));
        assert!(is_named("a b.vmdk", &named("'d/a%20b.vmdk'").unwrap()));
        assert!(is_named("a%20b.vmdk", &named("'a%20b.vmdk'").unwrap()));
        let pieces = named("'a.vmdk' ovf:chunkSize='9'").unwrap_err();
        assert!(pieces.message().contains("in pieces"), "{pieces}");
        assert!(named("'https://x/a.vmdk'").unwrap_err().message().contains("at 'https://x"));
    }

    #[test]
    fn disks_are_known_by_name_or_format() {
        for (name, head, is) in [
            ("disk.raw", &[0; 512][..], true),
            ("debian.qcow2.xz", b"\xfd7zXZ\0", true),
            ("box.img", b"QFI\xfb\0\0\0\x03", true),
            ("disk-0", b"KDMV", true),
            ("._disk.raw", &[0; 512], false),
            ("initrd.img", b"\x1f\x8b\x08", false),
            ("initech.qcow2", b"QFI\xfb\0\0\0\x03", true),
            ("README", b"text\n", false),
            ("disk.raw", b"", false),
        ] {
            assert_eq!(looks_like_a_disk(name, head), is, "{name}");
        }
    }
}
