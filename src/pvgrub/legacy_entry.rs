//! The commands of an entry of GRUB legacy's, one after the other until one fails, as it executes
//! them. (stage2/cmdline.c, run_script(), and stage2/builtins.c in the sources of GRUB 0.97)

use super::devices::{By, Files};
use super::legacy_menu::{Read, number, saved_in, split};
use super::menu::{Entry, Place, device};
use crate::ext4::Kind;
use std::cell::Cell;

/// Most commands that are executed for a menu, and how many of them a search, or another menu,
/// counts as.
const MAX_COMMANDS: u32 = 50_000;
const SEARCH: u32 = 100;
const ANOTHER: u32 = 1000;
/// Menus at most that are shown one instead of the other.
const MAX_DEPTH: u32 = 8;

/// BIOS's number of the first hard disk.
const DISK: u32 = 0x80;
/// Disks of a kind at most. (stage2/disk_io.c, sane_partition())
const DISKS: u32 = 8;
/// Partitions at most. (stage2/disk_io.c, set_device())
const PARTITIONS: u32 = 255;

/// Why no more of an entry is executed.
enum End {
    /// What was loaded boots.
    AtBoot,
    /// A file that it needs is not there, which is seen when it is to be read.
    Missing,
    /// A command failed, and why.
    Failed(String),
}

impl<T: Into<String>> From<T> for End {
    fn from(why: T) -> Self {
        Self::Failed(why.into())
    }
}

type Done = Result<(), End>;

/// What entries are executed with.
pub struct Run<'a> {
    /// Where paths without a device are.
    device: &'a str,
    files: &'a dyn Files,
    /// How many more commands may be executed.
    left: Cell<u32>,
}

impl<'a> Run<'a> {
    pub fn new(device: &'a str, files: &'a dyn Files) -> Self {
        Self { device, files, left: Cell::new(MAX_COMMANDS) }
    }

    /// Take as many commands from those that may be executed.
    fn spend(&self, count: u32) -> Done {
        let left = self.left.get().checked_sub(count).ok_or("the menu has too many commands")?;
        self.left.set(left);
        Ok(())
    }

    /// Execute one. With it comes whether all that it needs is there.
    pub fn entry(&self, read: &Read, at: usize, depth: u32) -> (Entry, bool) {
        let (title, commands) = &read.entries[at];
        let empty = Entry { index: at.to_string(), title: title.clone(), ..Entry::default() };
        Commands::new(self, read, empty, depth).run(commands)
    }

    /// What the menu in a file boots, which is shown instead. (stage2/builtins.c,
    /// configfile_func())
    fn another(&self, device: &str, path: &str, depth: u32) -> Result<Entry, String> {
        if depth >= MAX_DEPTH {
            return Err("that is one menu too many".into());
        }
        let text = self.files.read(device, path).ok_or("there is no such file")?;
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let saved = self.files.read(device, &format!("{directory}/default"));
        let read = Read::new(&text, saved_in(saved.as_deref()));
        let menu = read.menu();
        let order = menu.default.iter().chain(&menu.fallback).filter_map(|at| at.parse().ok());
        let order = order.filter(|&at: &usize| at < read.entries.len());
        let mut entries = order.map(|at| self.entry(&read, at, depth + 1));
        let found = entries.find(|(_, ready)| *ready).map(|(entry, _)| entry);
        found.ok_or_else(|| "nothing of that menu can be booted".into())
    }
}

/// An entry while it is executed.
struct Commands<'a> {
    run: &'a Run<'a>,
    read: &'a Read,
    entry: Entry,
    /// Where paths without a device are.
    root: Device,
    depth: u32,
}

impl<'a> Commands<'a> {
    pub fn new(run: &'a Run<'a>, read: &'a Read, entry: Entry, depth: u32) -> Self {
        let root = match device(run.device, 1) {
            Place::Partition(number) => Device { disk: DISK, partition: number.checked_sub(1) },
            _ => Device { disk: DISK, partition: None },
        };
        Self { run, read, entry, root, depth }
    }

    /// Execute these. With the entry comes whether all that it needs is there.
    pub fn run(mut self, commands: &[String]) -> (Entry, bool) {
        self.entry.place = self.root.place();
        let ended = commands.iter().try_for_each(|line| {
            let (command, rest) = split(line);
            self.command(command, rest).map_err(|end| match end {
                End::Failed(why) => End::Failed(format!("{}: {why}", line.trim_end())),
                end => end,
            })
        });
        let mut entry = self.entry;
        let there = !matches!(ended, Err(End::Missing));
        match ended {
            Err(End::Failed(why)) => entry.fails = Some(why),
            _ if entry.other.is_none() => entry.other = super::not_linux(&entry),
            _ => {}
        }
        let ready = there && entry.fails.is_none() && entry.other.is_none();
        (entry, ready)
    }

    fn command(&mut self, command: &str, rest: &str) -> Done {
        self.run.spend(match command {
            "configfile" => ANOTHER,
            "find" | "uuid" => SEARCH,
            _ => 1,
        })?;
        match command {
            "root" | "rootnoverify" => self.root(rest),
            "uuid" => self.uuid(rest),
            "kernel" => self.kernel(rest),
            "initrd" => self.initrd(rest),
            // Of a Linux kernel's modules, the last is its initial ramdisk.
            "module" | "modulenounzip" => match &self.entry.kernel {
                Some(_) if super::not_linux(&self.entry).is_some() => Ok(()),
                _ => self.initrd(rest),
            },
            "chainloader" => {
                self.entry.kernel = None;
                self.entry.other = Some("it starts another boot loader".into());
                Ok(())
            }
            "configfile" => {
                let (root, path) = self.locate(rest)?;
                let found = self.run.another(&root.name(), path, self.depth)?;
                let Entry { index, title, .. } = std::mem::take(&mut self.entry);
                self.entry = Entry { index, title, save: None, ..found };
                Err(End::AtBoot)
            }
            "halt" | "reboot" => {
                self.entry.kernel = None;
                self.entry.other = Some("it boots nothing".into());
                Err(End::AtBoot)
            }
            "boot" => match (&self.entry.kernel, &self.entry.other) {
                (None, None) => Err("no kernel is loaded".into()),
                _ => Err(End::AtBoot),
            },
            "savedefault" => self.savedefault(rest),
            "lock" if self.read.password => Err("it takes the menu's password".into()),
            "password" | "md5crypt" => Err("it asks for a password, and nobody is there".into()),
            "default" | "timeout" | "fallback" | "hiddenmenu" => {
                Err("GRUB takes it only in front of the first title".into())
            }
            "cat" | "blocklist" | "testload" => self.exists(rest),
            "cmp" => {
                self.exists(rest)?;
                self.exists(behind(rest))
            }
            "find" => self.find(rest),
            "map" => {
                let _ = self.device(rest)?;
                self.device(behind(rest)).map(drop)
            }
            "makeactive" => match self.root.partition {
                Some(0..=3) => Ok(()),
                _ => Err("the root is no primary partition".into()),
            },
            "uppermem" => number(rest).map(drop).ok_or_else(|| "that is no number".into()),
            // What draws, waits, tells, or writes to the disk changes nothing of what is loaded.
            _ => Ok(()),
        }
    }

    fn root(&mut self, rest: &str) -> Done {
        if !rest.is_empty() {
            let (root, _) = self.device(rest)?;
            self.set_root(root)?;
        }
        Ok(())
    }

    fn set_root(&mut self, root: Device) -> Done {
        match (root.disk, root.partition) {
            (DISK, None) => {}
            (DISK, Some(_)) if self.run.files.is_there(&root.name()) => {}
            (DISK, Some(_)) => return Err("there is no such partition".into()),
            _ => return Err("that is not the root volume".into()),
        }
        self.root = root;
        if self.entry.kernel.is_none() {
            self.entry.place = root.place();
        }
        Ok(())
    }

    /// As `root`, by the UUID of a file system. (Ubuntu's patch uuid.diff)
    fn uuid(&mut self, rest: &str) -> Done {
        let found = self.run.files.search(By::Uuid, word(rest), &[]);
        let Some(found) = found else { return Err("no file system has it".into()) };
        match device(&found, 1) {
            Place::Partition(number) => {
                self.set_root(Device { disk: DISK, partition: number.checked_sub(1) })
            }
            _ => self.set_root(Device { disk: DISK, partition: None }),
        }
    }

    /// (stage2/builtins.c, kernel_func(); stage2/boot.c, load_image())
    fn kernel(&mut self, rest: &str) -> Done {
        let mut rest = rest;
        while let Some(option) = rest.strip_prefix("--") {
            // PV-GRUB, whose kernels are of one type, looks at none. It knows these two options.
            if !option.starts_with("type=") && !option.starts_with("no-mem-option") {
                break;
            }
            rest = behind(rest);
        }
        let (root, path) = self.locate(rest)?;
        self.entry.place = root.place();
        self.entry.kernel = Some(path.to_owned());
        self.entry.arguments = behind(rest).trim_end().to_owned();
        self.entry.initrds.clear();
        self.entry.other = None;
        self.there(root, path)
    }

    fn initrd(&mut self, rest: &str) -> Done {
        if self.entry.kernel.is_none() {
            return Err("no Linux kernel is loaded".into());
        }
        let (root, path) = self.locate(rest)?;
        let named = match root.place() == self.entry.place {
            true => path.to_owned(),
            false => format!("({}){path}", root.name()),
        };
        self.entry.initrds = vec![named];
        self.there(root, path)
    }

    /// The entry that is saved as the default. (stage2/builtins.c, savedefault_helper())
    fn savedefault(&mut self, rest: &str) -> Done {
        let saved = if rest.is_empty() {
            self.entry.index.clone()
        } else if rest.starts_with("fallback") {
            // The one behind its own, or the first.
            let fallback = &self.read.fallback;
            let own = fallback.iter().position(|at| at.to_string() == self.entry.index);
            let next = fallback.get(own.map_or(0, |own| own + 1));
            next.ok_or("no fallback is left")?.to_string()
        } else {
            number(rest).ok_or("that is no number")?.0.to_string()
        };
        self.entry.save = Some(saved);
        Ok(())
    }

    fn find(&self, rest: &str) -> Done {
        let path = word(rest);
        let found = (0..PARTITIONS).take_while(|_| path.starts_with('/')).any(|number| {
            let device = Device { disk: DISK, partition: Some(number) };
            self.run.files.stat(&device.name(), path).is_some_and(|(kind, _)| kind == Kind::File)
        });
        if found { Ok(()) } else { Err("no partition has it".into()) }
    }

    fn exists(&self, rest: &str) -> Done {
        let (root, path) = self.locate(rest)?;
        self.there(root, path).map_err(|_| "there is no such file".into())
    }

    fn there(&self, root: Device, path: &str) -> Done {
        let found = self.run.files.stat(&root.name(), path);
        if found.is_some_and(|(kind, _)| kind == Kind::File) { Ok(()) } else { Err(End::Missing) }
    }

    /// The device and the path of a file; the path ends at a space.
    fn locate<'t>(&self, text: &'t str) -> Result<(Device, &'t str), End> {
        let (root, rest) = match text.starts_with('(') {
            true => self.device(text)?,
            false => (self.root, text),
        };
        match word(rest) {
            path if path.starts_with('/') => Ok((root, path)),
            // A list of blocks.
            _ => Err("its path does not begin with a slash".into()),
        }
    }

    /// The device at the beginning, `(hd0,0)` and the like, and what follows it. (stage2/disk_io.c,
    /// set_device())
    fn device<'t>(&self, text: &'t str) -> Result<(Device, &'t str), End> {
        let wrong = || End::Failed("that is no device".into());
        let rest = text.strip_prefix('(').ok_or_else(wrong)?;
        let (disk, rest) = if rest.starts_with([',', ')']) {
            (self.root.disk, rest)
        } else {
            let (hard, digits) = match rest.strip_prefix("hd") {
                Some(digits) => (DISK, digits),
                None => (0, rest.strip_prefix("fd").unwrap_or(rest)),
            };
            let (number, rest) = number(digits).ok_or_else(wrong)?;
            (number.checked_add(hard).ok_or_else(wrong)?, rest)
        };
        if disk & !DISK >= DISKS {
            return Err(wrong());
        }
        let Some(rest) = rest.strip_prefix(',') else {
            let rest = rest.strip_prefix(')').ok_or_else(wrong)?;
            return Ok((Device { disk, partition: None }, rest));
        };
        let (partition, rest) = match number(rest) {
            Some((number, rest)) if disk >= DISK && number < PARTITIONS => {
                (Some(number), rest.strip_prefix(',').unwrap_or(rest))
            }
            Some(_) => return Err(wrong()),
            None => (self.root.partition, rest),
        };
        // A BSD slice, which is nothing that this disk has, does not end here.
        let rest = rest.strip_prefix(')').ok_or_else(wrong)?;
        Ok((Device { disk, partition }, rest))
    }
}

/// A disk by BIOS's number, and one of its partitions, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Device {
    disk: u32,
    partition: Option<u32>,
}

impl Device {
    /// What GRUB 2 calls it.
    fn name(self) -> String {
        let kind = if self.disk >= DISK { "hd" } else { "fd" };
        let partition = self.partition.map(|number| format!(",{}", number + 1)).unwrap_or_default();
        format!("{kind}{}{partition}", self.disk & !DISK)
    }

    fn place(self) -> Place {
        device(&self.name(), 1)
    }
}

/// What is behind a word and the spaces that end it. (stage2/cmdline.c, skip_to())
fn behind(text: &str) -> &str {
    text.find(' ').map_or("", |at| text[at..].trim_start_matches(' '))
}

fn word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}
