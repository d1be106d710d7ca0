//! What comes into a store that has no room for it: refused before it comes, and given up when
//! another takes the room.

mod common;
mod servers;

use common::images::noise;
use common::{Store, small};
use servers::registry;
use std::fs;

const MIB: usize = 1 << 20;
/// What is in the store's directories of objects, and half made.
const LEFT: &str =
    "find $STORE/images $STORE/snapshots $STORE/kernels $STORE/tmp -mindepth 1 | wc -l";

/// An image of so many MiB.
fn import(store: &Store, name: &str, bytes: &[u8], more: &[&str]) {
    let path = store.home().join("disk.raw");
    fs::write(&path, bytes).unwrap();
    store.ok(&[&["image", "import", path.to_str().unwrap(), "--name", name], more].concat());
}

/// One line that says what is needed and what there is; nothing is left.
fn is_refused(told: &[String], said: &str, needs: &str) {
    assert!(said.starts_with("spore: InsufficientVolumeCapacity: "), "{said}");
    assert!(said.contains(needs) && said.contains(" MiB are free at /mnt"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(told, ["1", "0"]);
}

#[test]
fn a_copy_from_another_store_is_refused_and_done_once_there_is_room() {
    let store = Store::new();
    let mut bytes = vec![0; 12 * MIB];
    noise(&mut bytes[6 * MIB..], 1);
    import(&store, "big", &bytes, &[]);
    let script = format!(
        "STORE=/mnt/r; \"$SPORE\" region add small /mnt/r > /dev/null || exit 1
        \"$SPORE\" image copy big --to small --name big; echo $?; {LEFT}
        mount -o remount,size=64m /mnt || exit 1
        \"$SPORE\" image copy big --to small --name big > /dev/null || exit 1
        export SPORE_HOME=/mnt/r
        \"$SPORE\" snapshot verify $(\"$SPORE\" snapshot ls -q)"
    );
    let Some((told, said)) = small::run(&store, 4, &script) else { return };
    is_refused(&told[..2], &said, "it needs 6 MiB more, and 3 MiB");
    assert!(told[2..].iter().all(|line| line.ends_with(": OK")), "{told:?}");
}

/// Each chunk of this image is the same: a few bytes in the registry become 64 MiB.
#[test]
fn a_copy_from_a_registry_is_refused_before_anything_is_fetched() {
    let Some(server) = registry() else { return };
    let store = Store::new();
    import(&store, "big", &vec![7; 64 * MIB], &[]);
    let region = format!("oci://127.0.0.1:{}/images", server.port);
    store.ok(&["region", "add", "west", &region]);
    store.ok(&["image", "copy", "big", "--to", "west", "--name", "big"]);
    let script = format!(
        "STORE=/mnt/s; export SPORE_HOME=$STORE; \"$SPORE\" region add west {region} > /dev/null || exit 1
        \"$SPORE\" image copy big --from west --name big; echo $?; {LEFT}"
    );
    let Some((told, said)) = small::run(&store, 24, &script) else { return };
    is_refused(&told, &said, "it needs 64 MiB more, and 23 MiB");
}

#[test]
fn a_copy_from_a_registry_whose_room_is_taken_leaves_nothing() {
    let Some(server) = registry() else { return };
    let store = Store::new();
    let mut bytes = vec![0; 48 * MIB];
    noise(&mut bytes, 2);
    import(&store, "big", &bytes, &[]);
    let region = format!("oci://127.0.0.1:{}/images", server.port);
    store.ok(&["region", "add", "west", &region]);
    store.ok(&["image", "copy", "big", "--to", "west", "--name", "big"]);
    // The rest is taken as soon as the first byte has come.
    let script = format!(
        "STORE=/mnt/s; export SPORE_HOME=$STORE; \"$SPORE\" region add west {region} > /dev/null || exit 1
        \"$SPORE\" image copy big --from west --name big & copy=$!
        while ! ls $STORE/snapshots/*/data > /dev/null 2>&1; do kill -0 $copy || exit 1; done
        cat /dev/zero > /mnt/taken 2> /dev/null
        wait $copy; echo $?; {LEFT}"
    );
    let Some((told, said)) = small::run(&store, 64, &script) else { return };
    assert!(said.starts_with("spore: InsufficientVolumeCapacity: "), "{said}");
    assert!(said.lines().count() == 1 && !said.contains("run the same copy again"), "{said}");
    // A write has failed, or has not been begun.
    assert!(["125", "1"].contains(&&*told[0]) && told[1] == "0", "{told:?}");
}

#[test]
fn a_package_from_a_pipe_is_given_up_before_it_fills_the_file_system() {
    let store = Store::new();
    import(&store, "big", &vec![7; 64 * MIB], &[]);
    let script = format!(
        "STORE=/mnt/s; \"$SPORE\" image export big -o $HERE/big.spore || exit 1
        export SPORE_HOME=$STORE
        \"$SPORE\" image import - < $HERE/big.spore; echo $?; {LEFT}"
    );
    let Some((told, said)) = small::run(&store, 24, &script) else { return };
    is_refused(&told, &said, "it needs 4 MiB more, and ");
}

#[test]
fn a_bundle_is_refused_before_it_is_unpacked() {
    let store = Store::new();
    let mut bytes = vec![0; 64 * MIB];
    noise(&mut bytes[..32 * MIB], 3);
    import(&store, "big", &bytes, &["--root-device-type", "instance-store"]);
    let script = format!(
        "STORE=/mnt/s; mkdir $HERE/out; \"$SPORE\" image bundle big --to $HERE/out > /dev/null || exit 1
        export SPORE_HOME=$STORE; mkdir -m 700 $STORE; cp -a $HERE/accounts $STORE
        \"$SPORE\" image register $HERE/out/big.manifest.xml --name big; echo $?; {LEFT}"
    );
    let Some((told, said)) = small::run(&store, 24, &script) else { return };
    is_refused(&told, &said, "it needs 3");
}
