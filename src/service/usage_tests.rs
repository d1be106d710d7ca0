use super::*;
use serde_json::json;

fn entry(kind: &str, id: &str, event: Event, wall: u64, boot: (&str, u64), record: Value) -> Entry {
    Entry {
        event_time: crate::store::rfc3339(std::time::Duration::from_millis(wall)),
        boot_ms: boot.1,
        boot_id: boot.0.into(),
        account_id: "1000".into(),
        cause: None,
        command: "run".into(),
        event,
        kind: kind.into(),
        id: id.into(),
        record,
    }
}

fn sum(entries: &[Entry], alive: &[&str], now: (u64, &str, u64)) -> Vec<Usage> {
    let alive = alive.iter().map(|id| (*id).to_owned()).collect();
    let now = Moment { wall: now.0, boot_ms: now.2, boot_id: now.1.into() };
    Meter::new(entries).add_up(entries, &alive, &now)
}

fn instance(state: &str, ended: Option<u64>) -> Value {
    json!({ "State": state, "ImageId": "ami-1", "EndedAt": ended, "HourlyRate": "3.6",
            "ProductCodes": [{ "ProductCodeId": "p", "ProductCodeType": "marketplace" }] })
}

#[test]
fn an_instance_counts_from_its_launch_to_its_end() {
    let entries = [
        entry("instance", "i-1", Event::Created, 1000, ("a", 100), instance("pending", None)),
        entry("instance", "i-1", Event::Modified, 1100, ("a", 200), instance("running", None)),
        // Noticed 4 s after it ended.
        entry(
            "instance",
            "i-1",
            Event::Modified,
            10_000,
            ("a", 9100),
            instance("stopped", Some(6000)),
        ),
        entry("instance", "i-1", Event::Modified, 20_000, ("a", 19_100), instance("pending", None)),
    ];
    let usage = sum(&entries, &["i-1"], (30_000, "a", 29_100));
    assert_eq!(usage.len(), 1);
    assert_eq!(usage[0].instance_ms, 5000 + 10_000);
    assert_eq!(usage[0].charge().as_deref(), Some("0.015000"));
    assert_eq!(usage[0].product_codes, ["p"]);
    // Gone without a word: nobody knows for how long.
    assert_eq!(sum(&entries, &[], (30_000, "a", 29_100))[0].instance_ms, 5000);
}

#[test]
fn no_clock_that_jumps_makes_time_negative_or_long() {
    let run = |end_wall: u64, end: (&str, u64), ended: u64| {
        let entries = [
            entry(
                "instance",
                "i-1",
                Event::Created,
                1 << 40,
                ("a", 100),
                instance("pending", None),
            ),
            entry(
                "instance",
                "i-1",
                Event::Modified,
                end_wall,
                end,
                instance("stopped", Some(ended)),
            ),
        ];
        sum(&entries, &[], (0, "a", 0))[0].instance_ms
    };
    // Backwards by years, forwards by years, within one boot.
    assert_eq!(run(5, ("a", 1100), 5), 1000);
    assert_eq!(run(1 << 44, ("a", 1100), 1 << 44), 1000);
    // The jump lies between the end and its being noticed: no less than nothing.
    assert_eq!(run(1 << 44, ("a", 1100), 1 << 40), 0);
    // Over a reboot only the wall clock is there.
    assert_eq!(run(5, ("b", 0), 5), 0);
    assert_eq!(run((1 << 40) + 7000, ("b", 0), (1 << 40) + 7000), 7000);
}

#[test]
fn volumes_and_snapshots_count_by_size_and_belong_to_images() {
    let size = |gib: u64, snapshot: &str| json!({ "Size": gib, "SnapshotId": snapshot });
    let bytes = json!({ "State": "completed", "StoredBytes": 1u64 << 30 });
    let entries = [
        entry("snapshot", "snap-1", Event::Created, 0, ("a", 0), bytes),
        entry("image", "ami-1", Event::Created, 0, ("a", 0), json!({ "Snapshots": ["snap-1"] })),
        entry("volume", "vol-1", Event::Created, 0, ("a", 0), size(2, "snap-1")),
        entry("volume", "vol-1", Event::Modified, 0, ("a", 3_600_000), size(4, "snap-1")),
        entry("volume", "vol-2", Event::Created, 0, ("a", 0), size(1, "")),
        entry("volume", "vol-2", Event::Removed, 0, ("a", 3_600_000), Value::Null),
    ];
    let usage = sum(&entries, &["vol-1", "snap-1"], (0, "a", 7_200_000));
    let of = |image: Option<&str>| usage.iter().find(|u| u.image_id.as_deref() == image).unwrap();
    assert_eq!(of(Some("ami-1")).volume_gib_hours(), 6.0);
    assert_eq!(of(Some("ami-1")).snapshot_gib_hours(), 2.0);
    assert_eq!(of(None).volume_gib_hours(), 1.0);
}

/// An account's journal may have any ids in it.
#[test]
fn nobody_ends_or_begins_what_is_anothers() {
    let by = |account: &str, mut entry: Entry| {
        entry.account_id = account.into();
        entry
    };
    let launched =
        || entry("instance", "i-1", Event::Created, 1000, ("a", 1000), instance("running", None));
    let ended = || {
        entry("instance", "i-1", Event::Removed, 2000, ("a", 2000), instance("terminated", None))
    };
    let entries = [launched(), by("1001", ended()), by("1001", launched())];
    let usage = sum(&entries, &["i-1"], (9000, "a", 9000));
    let of = |account: &str| usage.iter().find(|usage| usage.account_id == account).unwrap();
    assert_eq!(of("1000").instance_ms, 8000);
    assert_eq!(of("1001").instance_ms, 8000);
}
