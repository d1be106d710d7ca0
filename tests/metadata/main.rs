//! Instance metadata over HTTP, read by cloud-init, curl and clients that misbehave.

#[path = "../common/mod.rs"]
mod common;

mod cloud_init;
mod instances;
mod volume;

use cloud_init::CloudInit;
use serde_json::{Value, json};
use sporevm::metadata::token::Tokens;
use sporevm::metadata::tree::{self, Given, Subnet};
use sporevm::metadata::{Metadata, http};
use sporevm::record::instance::InstanceRecord;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

const MAC: &str = "02:00:00:00:00:a0";

/// A server on loopback, in a thread of its own.
struct Served {
    address: SocketAddr,
    metadata: watch::Sender<Arc<Metadata>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn new(address: SocketAddr, metadata: Metadata) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (metadata, receiver) = watch::channel(Arc::new(metadata));
        let (end, ended) = oneshot::channel();
        let serve = move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            let tokens = Arc::new(Tokens::generate().unwrap());
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = std::pin::pin!(http::serve(listener, receiver, tokens));
                futures_util::future::select(serve, ended).await;
            });
        };
        let thread = Some(std::thread::spawn(serve));
        Self { address, metadata, end: Some(end), thread }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// What comes back for these bytes until the connection is closed.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may be closed before all has been sent.
        let _ = stream.write_all(bytes);
        rest(stream)
    }

    fn get(&self, path: &str, headers: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn record(options: Value) -> InstanceRecord {
    let interface = json!({
        "NetworkInterfaceId": "eni-00000000000000001",
        "MacAddress": MAC,
        "PrivateIpAddress": "10.0.0.5",
        "SubnetId": "subnet-00000000000000001",
        "VpcId": "vpc-00000000000000001",
        "Groups": [{ "GroupId": "sg-00000000000000001", "GroupName": "default" }],
        "Attachment": { "DeviceIndex": 0, "DeleteOnTermination": true },
        "Spore": { "Network": "default" },
    });
    let root = json!({ "VolumeId": "vol-00000000000000001", "DeleteOnTermination": true });
    let record = json!({
        "ReservationId": "r-00000000000000001",
        "OwnerId": "1000",
        "Instance": {
            "InstanceId": "i-00000000000000001",
            "ImageId": "ami-00000000000000001",
            "State": { "Code": 0, "Name": "pending" },
            "AmiLaunchIndex": 3,
            "InstanceType": "t3.micro",
            "LaunchTime": "2026-01-01T00:00:00.000Z",
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
            "RootDeviceName": "/dev/vda",
            "RootDeviceType": "ebs",
            "BlockDeviceMappings": [{ "DeviceName": "/dev/vda", "Ebs": root }],
            "NetworkInterfaces": [interface],
            "CpuOptions": { "CoreCount": 2, "ThreadsPerCore": 1 },
            "MetadataOptions": options,
            "InstanceInitiatedShutdownBehavior": "stop",
            "Tags": [{ "Key": "Name", "Value": "web" }],
            "Spore": {
                "Memory": 1u64 << 30,
                "CommandLine": "",
                "Uuid": "ec2d1e7a-0000-4000-8000-000000000000",
                "Engine": "auto",
                "Starts": 1,
                "ConsoleStart": 0,
            },
        },
    });
    serde_json::from_value(record).unwrap()
}

fn options(tokens: &str) -> Value {
    json!({
        "State": "applied",
        "HttpTokens": tokens,
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
        "HttpProtocolIpv6": "enabled",
        "InstanceMetadataTags": "enabled",
    })
}

fn metadata(tokens: &str) -> Metadata {
    let mut record = record(options(tokens));
    record.instance.key_name = Some("mine".into());
    record.instance.spore.public_key = Some("ssh-ed25519 AAAA mine".into());
    let subnet =
        Subnet { device_index: 0, ipv4_cidr: "10.0.0.0/16".into(), ipv6_cidr: None, dhcp6: false };
    let given = Given { user_data: Some(b"#!/bin/sh\n\xff"), subnets: &[subnet] };
    tree::of(&record, given)
}

#[test]
fn cloud_init_reads_all_of_it_with_tokens_required() {
    let Some(cloud_init) = CloudInit::get() else { return };
    for tokens in ["required", "optional"] {
        let served = Served::new(loopback(), metadata(tokens));
        let found = cloud_init.python("crawl.py", &served.url());
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["_metadata_api_version"], "2021-03-23", "{found}");
        assert_eq!(found["user-data"], "#!/bin/sh\n\u{ff}");
        let data = &found["meta-data"];
        assert_eq!(data["instance-id"], "i-00000000000000001");
        assert_eq!(data["ami-launch-index"], "3");
        assert_eq!(data["public-keys"], json!({ "mine": "ssh-ed25519 AAAA mine" }));
        assert_eq!(data["placement"]["availability-zone"], "local-1a");
        assert_eq!(data["tags"]["instance"]["Name"], "web");
        let interface = &data["network"]["interfaces"]["macs"][MAC];
        assert_eq!(interface["vpc-id"], "vpc-00000000000000001");
        assert_eq!(interface["local-ipv4s"], "10.0.0.5");
        let document = &found["dynamic"]["instance-identity"]["document"];
        assert_eq!(document["region"], "local-1");
        assert_eq!(document["privateIp"], "10.0.0.5");
    }
}

#[test]
fn curl_gets_a_token_and_with_it_what_it_asks_for() {
    let served = Served::new(loopback(), metadata("required"));
    let curl = |arguments: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--noproxy", "*", "-w", " %{http_code}"]).args(arguments);
        let output = command.arg(format!("{}{path}", served.url())).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60";
    let token = curl(&["-X", "PUT", "-H", ttl], "/latest/api/token");
    let token = token.strip_suffix(" 200").unwrap();
    let header = format!("X-aws-ec2-metadata-token: {token}");
    let id = curl(&["-H", &header], "/latest/meta-data/instance-id");
    assert_eq!(id, "i-00000000000000001 200");
    assert!(curl(&[], "/latest/meta-data/instance-id").ends_with(" 401"));
    assert!(curl(&["-I", "-H", &header], "/latest/").ends_with(" 200"));
    assert!(curl(&["-H", &header, "-d", "x"], "/latest/").ends_with(" 405"));
}

#[test]
fn what_changes_is_answered_from_then_on() {
    let served = Served::new(loopback(), metadata("optional"));
    let path = "/latest/meta-data/instance-id";
    assert!(served.get(path, "").ends_with("\r\n\r\ni-00000000000000001"));
    served.metadata.send(Arc::new(metadata("required"))).unwrap();
    assert!(served.get(path, "").starts_with("HTTP/1.1 401 "));
}

#[test]
fn where_ipv6_is_off_nobody_is_answered_there() {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if TcpListener::bind(address).is_err() {
        return common::skip::skip_anywhere("this host has no IPv6");
    }
    let mut metadata = metadata("optional");
    let served = Served::new(address, metadata.clone());
    assert!(served.get("/", "").starts_with("HTTP/1.1 200 "));
    metadata.options.http_protocol_ipv6 = sporevm::record::metadata::Endpoint::Disabled;
    served.metadata.send(Arc::new(metadata)).unwrap();
    assert_eq!(served.get("/", ""), "");
}

#[test]
fn a_connection_too_many_ends_the_oldest_and_is_served() {
    let served = Served::new(loopback(), metadata("optional"));
    let mut held: Vec<TcpStream> = (0..100).map(|_| served.connect()).collect();
    // A request that never ends: none of them is idle.
    held.iter_mut().for_each(|stream| drop(stream.write_all(b"GET / HT")));
    let last = served.connect();
    let mut asking = last.try_clone().unwrap();
    asking.write_all(b"GET /latest/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(rest(last).ends_with("dynamic\nmeta-data\nuser-data"));
    // And all of those come to their end.
    for stream in held {
        rest(stream);
    }
}

#[test]
fn what_is_no_request_ends_its_connection_only() {
    let served = Served::new(loopback(), metadata("optional"));
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(1000));
    let far = format!("GET /{} HTTP/1.1\r\n\r\n", "a/".repeat(100_000));
    for bytes in [
        long.as_bytes(),
        many.as_bytes(),
        far.as_bytes(),
        b"\0\xff\xfe",
        b"\r\n\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"",
    ] {
        assert!(!served.send(bytes).contains(" 200 "), "{:?}", String::from_utf8_lossy(bytes));
        assert!(served.get("/latest/", "").contains(" 200 OK"));
    }
}
