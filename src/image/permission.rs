//! Launch permissions: who may see and launch an image, recorded in the image and enforced by the
//! kernel.
//!
//! In a shared store the directories of the image, its snapshots, its kernel and its ramdisk have
//! access control lists that say what the record says. A snapshot is open to all that may launch an
//! image of it, and to whoever has a volume of it, so that taking a permission back takes nothing
//! from under an instance.

use super::builtin;
use crate::account;
use crate::error::{Code, Error, Result};
use crate::id::ImageId;
use crate::record::image::{Image, ImageState, LaunchPermission};
use crate::store::acl::{self, Readers};
use crate::store::{Durability, Locked, Record, Store};
use crate::volume::users;
use std::str::FromStr;

/// Most entries of an image's launch permissions: they must fit into an access control list.
const MAX_ENTRIES: usize = 200;

/// An account, a group of accounts, or everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A user or a group.
    Some(LaunchPermission),
    /// `Group=all`: the image is public.
    All,
}

impl FromStr for Who {
    type Err = Error;
    /// `user:NAME|UID`, `group:NAME|GID` or `all`.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            None if text.bytes().all(|b| b.is_ascii_digit()) => Self::user(text),
            Some(("user", name)) => Self::user(name),
            Some(("group", "all")) => Ok(Self::All),
            Some(("group", name)) => Self::group(name),
            _ => Err(Error::usage(format!(
                "'{}' is nobody: give user:NAME, user:UID, group:NAME, group:GID or all",
                text.escape_debug()
            ))),
        }
    }
}

impl Who {
    fn user(name: &str) -> Result<Self> {
        account::user(name).map(|id| Self::Some(LaunchPermission::UserId(id.to_string())))
    }

    fn group(name: &str) -> Result<Self> {
        account::group(name).map(|id| Self::Some(LaunchPermission::Group(id.to_string())))
    }
}

/// A change of launch permissions (EC2 LaunchPermissionModifications).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Who is taken in.
    pub add: Vec<Who>,
    /// Who is put out.
    pub remove: Vec<Who>,
    /// First everybody is put out (EC2 ResetImageAttribute).
    pub reset: bool,
}

impl Change {
    /// True if nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        !self.reset && self.add.is_empty() && self.remove.is_empty()
    }
}

impl FromStr for Change {
    type Err = Error;
    /// EC2's spelling: `Add=[{UserId=1001},{Group=all}],Remove=[…]`, or the same as JSON.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!(
                "'{}' is not of the form Add=[{{UserId=1001}},{{Group=all}}],Remove=[…]",
                text.escape_debug()
            ))
        };
        // JSON differs in its colons and quotes, and in the braces around all.
        let json = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        let plain = json.map_or_else(|| text.to_owned(), |t| t.replace(':', "="));
        let plain: String = plain.chars().filter(|c| *c != '"' && !c.is_whitespace()).collect();
        let mut change = Self::default();
        let mut rest = plain.as_str();
        while !rest.is_empty() {
            let (verb, after) = rest.split_once("=[").ok_or_else(bad)?;
            let (list, after) = after.split_once(']').ok_or_else(bad)?;
            let whom = match verb {
                "Add" => &mut change.add,
                "Remove" => &mut change.remove,
                _ => return Err(bad()),
            };
            for item in list.split("},{").filter(|item| !item.is_empty()) {
                let item = item.trim_matches(['{', '}']);
                whom.push(match item.split_once('=').ok_or_else(bad)? {
                    ("Group", "all") => Who::All,
                    ("Group", name) => Who::group(name)?,
                    ("UserId", name) => Who::user(name)?,
                    _ => return Err(bad()),
                });
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        Ok(change)
    }
}

/// What an image's permissions become.
fn changed(image: &Image, change: &Change) -> Result<Image> {
    let mut new = image.clone();
    if change.reset {
        new.public = false;
        new.launch_permissions.clear();
    }
    for who in &change.add {
        match who {
            Who::All => new.public = true,
            Who::Some(entry) => new.launch_permissions.push(entry.clone()),
        }
    }
    for who in &change.remove {
        match who {
            Who::All => new.public = false,
            Who::Some(entry) => new.launch_permissions.retain(|old| old != entry),
        }
    }
    new.launch_permissions.sort();
    new.launch_permissions.dedup();
    if new.launch_permissions.len() > MAX_ENTRIES {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("an image is shared with at most {MAX_ENTRIES} users and groups; use a group"),
        ));
    }
    Ok(new)
}

/// Change who may launch an image of one's own.
///
/// # Errors
/// It does not exist, is another's or deregistered; the file system has no access control lists.
pub fn change(store: &Store, id: &ImageId, change: &Change) -> Result<Image> {
    let _lock = store.lock()?;
    let mut locked = store.images().lock(id)?;
    super::catalog::check_own(store, &locked.record)?;
    if locked.record.state != ImageState::Available {
        let why = format!("image {id} is not available yet; share it once it is");
        return Err(Error::refused(Code::InvalidAMIIDUnavailable, why));
    }
    let new = changed(&locked.record, change)?;
    apply(store, &mut locked, new)?;
    Ok(locked.record.clone())
}

/// Make the access control lists of all of one's own images say what their records say.
///
/// # Errors
/// As [`change`].
pub fn enforce_all(store: &Store) -> Result<()> {
    let _lock = store.lock()?;
    let mut images = own_images(store)?;
    images.retain(|image| image.state == ImageState::Available);
    for image in images {
        let mut locked = store.images().lock(&image.image_id)?;
        let same = locked.record.clone();
        apply(store, &mut locked, same)?;
    }
    Ok(())
}

/// Whoever may see an image may open all of it at any moment: what it is made of is opened first
/// and closed last.
fn apply(store: &Store, locked: &mut Locked<Image>, new: Image) -> Result<()> {
    let enforced = store.administrator().is_some();
    let old = readers(&locked.record);
    if enforced {
        grant_parts(store, &new, &old)?;
    }
    locked.record = new;
    locked.save(Durability::Durable)?;
    if enforced {
        acl::grant(&locked.dir(), &readers(&locked.record))?;
        grant_parts(store, &locked.record, &Readers::default())?;
    }
    Ok(())
}

fn readers(image: &Image) -> Readers {
    let mut readers = Readers { public: image.public, ..Readers::default() };
    for entry in &image.launch_permissions {
        match entry {
            LaunchPermission::UserId(id) => readers.users.extend(id.parse::<u32>()),
            LaunchPermission::Group(id) => readers.groups.extend(id.parse::<u32>()),
        }
    }
    readers
}

/// Those of this user that others may launch, or may have launched before they were deregistered.
fn own_images(store: &Store) -> Result<Vec<Image>> {
    let (listing, me) = (store.images().list()?, store.owner_id());
    let launched = [ImageState::Available, ImageState::Deregistered];
    let mine = |i: &Image| i.owner_id == me && launched.contains(&i.state);
    Ok(listing.records.into_iter().filter(mine).collect())
}

/// Open what `image` is made of to all that may launch one of one's images of it or have a volume
/// of one, and to `more`.
fn grant_parts(store: &Store, image: &Image, more: &Readers) -> Result<()> {
    let mut images = own_images(store)?;
    images.retain(|other| other.image_id != image.image_id);
    images.push(image.clone());
    let holders = |image: &Image| -> Vec<u32> {
        image.snapshots().flat_map(|id| users::accounts(store, id)).collect()
    };
    let of = |uses: &dyn Fn(&Image) -> bool| {
        let mut all = more.clone();
        for image in images.iter().filter(|image| uses(image)) {
            if image.state == ImageState::Available {
                all.join(readers(image));
            }
            all.users.extend(holders(image));
        }
        all
    };
    for id in image.snapshots() {
        if is_own(store, &store.snapshots().get(id)?) {
            let all = of(&|image| image.snapshots().any(|other| other == id));
            if !all.is_empty() {
                users::allow(store, id)?;
            }
            acl::grant(&store.snapshots().dir(id), &all)?;
        }
    }
    if let Some(id) = &image.kernel_id
        && is_own(store, &store.kernels().get(id)?)
    {
        let all = of(&|image| image.kernel_id.as_ref() == Some(id));
        acl::grant(&store.kernels().dir(id), &all)?;
    }
    if let Some(id) = &image.ramdisk_id
        && is_own(store, &store.ramdisks().get(id)?)
    {
        let all = of(&|image| image.ramdisk_id.as_ref() == Some(id));
        acl::grant(&store.ramdisks().dir(id), &all)?;
    }
    Ok(())
}

fn is_own<R: Record>(store: &Store, record: &R) -> bool {
    record.owner() == store.owner_id()
}

/// True if the image is shared with this user by name or by group, not just with everybody.
pub fn is_explicit(image: &Image, uid: u32, groups: &[u32]) -> bool {
    image.launch_permissions.iter().any(|entry| match entry {
        LaunchPermission::UserId(id) => id.parse() == Ok(uid),
        LaunchPermission::Group(id) => id.parse().is_ok_and(|gid: u32| groups.contains(&gid)),
    })
}

/// Share a store of one's own with the other users of this machine: its built-in images with
/// everybody.
///
/// # Errors
/// As [`crate::store::shared::share`] and [`change`].
pub fn share_store(store: &Store) -> Result<Store> {
    crate::store::shared::share(store)?;
    let store = Store::open_within(store.home(), store.context())?;
    for name in [builtin::DEMO, builtin::BLANK_ID] {
        if let Some(image) = builtin::ensure(&store, name)? {
            change(&store, &image.image_id, &Change { add: vec![Who::All], ..Change::default() })?;
        }
    }
    enforce_all(&store)?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ec2s_spelling_is_understood() {
        let user = |id: &str| Who::Some(LaunchPermission::UserId(id.into()));
        for text in [
            "Add=[{UserId=1001},{Group=all}],Remove=[{UserId=1002}]",
            r#"{"Add": [{"UserId": "1001"}, {"Group": "all"}], "Remove": [{"UserId": "1002"}]}"#,
        ] {
            let change: Change = text.parse().unwrap();
            assert_eq!(change.add, [user("1001"), Who::All], "{text}");
            assert_eq!(change.remove, [user("1002")], "{text}");
        }
        for bad in ["x", "Add=", "Add=[{UserId}]", "Add=[{Org=1}]", "Put=[{UserId=1}]", "Add=[{"] {
            assert!(bad.parse::<Change>().is_err(), "{bad}");
        }
    }

    #[test]
    fn people_have_names_and_numbers() {
        let user = |id: &str| Who::Some(LaunchPermission::UserId(id.into()));
        assert_eq!("user:0".parse::<Who>().unwrap(), user("0"));
        assert_eq!("user:root".parse::<Who>().unwrap(), user("0"));
        assert_eq!("1001".parse::<Who>().unwrap(), user("1001"));
        assert_eq!("all".parse::<Who>().unwrap(), Who::All);
        let root = Who::Some(LaunchPermission::Group("0".into()));
        assert_eq!("group:root".parse::<Who>().unwrap(), root);
        for bad in ["", "user:", "user:no such user", "group:-1", "everybody", "user:4294967295"] {
            assert!(bad.parse::<Who>().is_err(), "{bad}");
        }
    }
}
