//! AWS's SDK for Rust: instances of the demo, a volume; coldsnap, which writes and reads a snapshot
//! block by block; and images of that. The argument is a directory for its files.

use aws_sdk_ec2::client::Waiters;
use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, Filter, InstanceStateName, ResourceType, ShutdownBehavior,
    Tag, TagSpecification,
};
use coldsnap::{SnapshotDownloader, SnapshotUploader, SnapshotWaiter, UploadZeroBlocks};
use std::path::Path;
use std::time::Duration;

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

const WAIT: Duration = Duration::from_secs(120);

/// The demo's image and its kernel.
async fn demo(ec2: &aws_sdk_ec2::Client) -> Done<(String, String)> {
    let named = Filter::builder().name("name").values("demo").build();
    let images = ec2.describe_images().owners("amazon").filters(named).send().await?;
    let image = &images.images()[0];
    Ok((image.image_id().unwrap().to_owned(), image.kernel_id().unwrap().to_owned()))
}

async fn instances(ec2: &aws_sdk_ec2::Client, image: &str) -> Done {
    let tag = Tag::builder().key("Name").value("rust").build();
    let tags = TagSpecification::builder().resource_type(ResourceType::Instance).tags(tag).build();
    let run = ec2.run_instances().image_id(image).min_count(2).max_count(2);
    let launched = run.tag_specifications(tags).send().await?;
    let ids: Vec<String> =
        launched.instances().iter().map(|one| one.instance_id().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    let named = Filter::builder().name("tag:Name").values("rust").build();
    let described = ec2.describe_instances().filters(named);
    let mut pages = described.into_paginator().page_size(5).items().send();
    let mut seen = 0;
    while let Some(reservation) = pages.next().await {
        for one in reservation?.instances() {
            assert_eq!(one.tags()[0].value(), Some("rust"));
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
    terminated(ec2, &ids).await?;
    let none = ec2.describe_images().image_ids("ami-00000000000000000").send().await;
    assert_eq!(none.unwrap_err().code(), Some("InvalidAMIID.NotFound"));
    Ok(())
}

async fn terminated(ec2: &aws_sdk_ec2::Client, ids: &[String]) -> Done {
    ec2.terminate_instances().set_instance_ids(Some(ids.to_vec())).send().await?;
    let ended = ec2.wait_until_instance_terminated().set_instance_ids(Some(ids.to_vec()));
    ended.wait(WAIT).await?;
    Ok(())
}

/// An image of a snapshot, and one of an instance of that, which the guest has stopped.
async fn images(ec2: &aws_sdk_ec2::Client, snapshot: &str, kernel: &str) -> Done {
    let disk = EbsBlockDevice::builder().snapshot_id(snapshot).build();
    let root = BlockDeviceMapping::builder().device_name("/dev/vda").ebs(disk).build();
    let register = ec2.register_image().name("uploaded").kernel_id(kernel);
    let register = register.root_device_name("/dev/vda").block_device_mappings(root);
    let image = register.send().await?.image_id().unwrap().to_owned();
    let run = ec2.run_instances().image_id(&image).min_count(1).max_count(1);
    let run = run.instance_initiated_shutdown_behavior(ShutdownBehavior::Stop).send().await?;
    let id = run.instances()[0].instance_id().unwrap().to_owned();
    // The waiter for it takes an instance that is pending for a failure.
    for _ in 0..600 {
        let all = ec2.describe_instances().instance_ids(&id).send().await?;
        let state = all.reservations()[0].instances()[0].state().and_then(|state| state.name());
        match state {
            Some(InstanceStateName::Stopped) => break,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    ec2.wait_until_instance_stopped().instance_ids(&id).wait(WAIT).await?;
    let made = ec2.create_image().instance_id(&id).name("by-rust").send().await?;
    let made = made.image_id().unwrap();
    ec2.wait_until_image_available().image_ids(made).wait(WAIT).await?;
    ec2.deregister_image().image_id(made).send().await?;
    terminated(ec2, &[id]).await?;
    ec2.deregister_image().image_id(&image).send().await?;
    Ok(())
}

async fn volumes(ec2: &aws_sdk_ec2::Client) -> Done {
    let zones = ec2.describe_availability_zones().send().await?;
    let zone = zones.availability_zones()[0].zone_name().unwrap();
    let volume = ec2.create_volume().availability_zone(zone).size(1).send().await?;
    let volume = volume.volume_id().unwrap();
    ec2.wait_until_volume_available().volume_ids(volume).wait(WAIT).await?;
    let snapshot = ec2.create_snapshot().volume_id(volume).description("rust").send().await?;
    let snapshot = snapshot.snapshot_id().unwrap();
    ec2.wait_until_snapshot_completed().snapshot_ids(snapshot).wait(WAIT).await?;
    ec2.delete_snapshot().snapshot_id(snapshot).send().await?;
    ec2.delete_volume().volume_id(volume).send().await?;
    ec2.wait_until_volume_deleted().volume_ids(volume).wait(WAIT).await?;
    Ok(())
}

/// What is uploaded is downloaded, and what lies between is zeros.
async fn blocks(
    config: &aws_config::SdkConfig,
    ec2: &aws_sdk_ec2::Client,
    dir: &Path,
) -> Done<String> {
    let (from, to) = (dir.join("up"), dir.join("down"));
    let mut disk = vec![0u8; 20 << 20];
    for (at, byte) in disk.iter_mut().enumerate().filter(|(at, _)| at / (3 << 20) % 2 == 0) {
        *byte = (at / 4096 % 251) as u8;
    }
    std::fs::write(&from, &disk)?;
    let ebs = || aws_sdk_ebs::Client::new(config);
    let up = SnapshotUploader::new(ebs());
    let (zeros, said) = (Some(UploadZeroBlocks::Omit), Some("coldsnap"));
    let id = up.upload_from_file(&from, None, said, None, None, zeros, None, None, None).await?;
    SnapshotWaiter::new(ec2.clone()).wait_for_completed(&id).await?;
    let described = ec2.describe_snapshots().snapshot_ids(&id).send().await?;
    assert_eq!(described.snapshots()[0].description(), said);
    SnapshotDownloader::new(ebs()).download_to_file(&id, &to, None, None, None).await?;
    let read = std::fs::read(&to)?;
    let (head, tail) = read.split_at(disk.len());
    assert!(head == disk && tail.iter().all(|byte| *byte == 0), "{} bytes", read.len());
    Ok(id)
}

#[tokio::main]
async fn main() -> Done {
    let dir = std::env::args().nth(1).ok_or("no directory")?;
    let config = aws_config::load_from_env().await;
    let ec2 = aws_sdk_ec2::Client::new(&config);
    let (image, kernel) = demo(&ec2).await?;
    instances(&ec2, &image).await?;
    volumes(&ec2).await?;
    let snapshot = blocks(&config, &ec2, Path::new(&dir)).await?;
    images(&ec2, &snapshot, &kernel).await?;
    ec2.delete_snapshot().snapshot_id(&snapshot).send().await?;
    Ok(())
}
