//! Every verb, and what it is run on.

use crate::salt::{self, World};

/// A verb and its command lines. `{i}` stands for all instances whose record can be read, in one
/// command; `{i:PLACE}` for each of those that are salted at that place, a command for each,
/// likewise `{image:…}`, `{snap:…}`, `{vol:…}`, `{aki:…}` and `{ari:…}`; `{run}` for each image
/// that is made of something salted, `{run:N}` for every third of them, from the N-th.
pub const TABLE: &[(&str, &[&str])] = &[
    ("image import", &["{file} --name import{n} --kernel {kernel}"]),
    ("image pull", &["file://{file} --name pull{n}", "file://{salt}", "debian:0"]),
    (
        "image register",
        &["register{n} --snapshot {snap:data}", "{bundle}", "register{n} --disk {salt}"],
    ),
    ("image create", &["{i:vmm.lock} --name create{n}"]),
    ("image export", &["{run} -o /dev/null"]),
    ("image bundle", &["{run:0} --to {out}"]),
    ("image copy", &["{run:1} --name copy{n}"]),
    ("image ls", &["", "--include-deprecated"]),
    ("image show", &["{run:2}", "{image:record.json}"]),
    ("image boot-entries", &["{run:0}"]),
    ("image modify", &["{image:lock} --description x"]),
    ("image deprecate", &["{image:lock} --at 2030-01-01"]),
    ("image disable", &["{image:lock}", "{image:.}"]),
    ("image enable", &["{image:lock}"]),
    ("image protect", &["{image:lock}"]),
    ("image unprotect", &["{image:lock}"]),
    ("image share", &["{image:lock} --add all --yes", "{run:1}", "own --add all --yes"]),
    ("image references", &["{run:2}"]),
    ("image deregister", &["{image:lock}", "{image:.}"]),
    ("kernel register", &["{kernel} --name kernel{n}", "{salt}"]),
    ("kernel ls", &[""]),
    ("kernel show", &["{aki:kernel}"]),
    ("kernel deregister", &["{aki:lock}"]),
    ("ramdisk register", &["{kernel} --name ramdisk{n}"]),
    ("ramdisk ls", &[""]),
    ("ramdisk show", &["{ari:ramdisk}"]),
    ("ramdisk deregister", &["{ari:ramdisk}"]),
    ("key create", &["key{n}"]),
    ("key import", &["import{n} {file}", "{salt} {salt}"]),
    ("key ls", &[""]),
    ("key rm", &["{key:private-key}", "{key:lock}"]),
    ("template create", &["template{n} --image demo", "like{n} --like {i:lock}"]),
    ("template version", &["{lt:lock} -t t3.micro"]),
    ("template default", &["{lt:record.json} 1"]),
    ("template ls", &[""]),
    ("template show", &["{lt:record.json}"]),
    ("template delete", &["{lt:lock}", "{lt:.}"]),
    ("key access create", &[""]),
    ("key access ls", &[""]),
    ("key access rm", &["AKIAAAAAAAAAAAAAAAAA"]),
    ("env", &[""]),
    ("asg create", &["group{n} --image demo -n 0 --max 1"]),
    ("asg ls", &["", "-o json"]),
    ("asg show", &["group"]),
    ("asg set", &["group -n 0"]),
    ("asg refresh", &["group"]),
    ("asg policy put", &["group policy{n} --target-cpu 50", "group simple{n} --adjust +1"]),
    ("asg policy ls", &["", "group -o json"]),
    ("asg policy execute", &["group policy"]),
    ("asg policy delete", &["group policy"]),
    ("asg suspend", &["group Launch"]),
    ("asg resume", &["group"]),
    ("asg delete", &["group --force"]),
    // Serving ends by a signal only; what its actions open, the other verbs open too.
    ("serve", &["--install-unit"]),
    ("snapshot create", &["{vol:lock}", "{vol:in-use}"]),
    ("snapshot copy", &["{snap:data}"]),
    ("snapshot import", &["{file}", "{salt}"]),
    ("snapshot ls", &[""]),
    ("snapshot show", &["{snap:data}"]),
    ("snapshot verify", &["{snap:data}"]),
    ("snapshot delete", &["{snap:lock}", "{snap:users}"]),
    ("volume create", &["--snapshot {snap:data}", "--snapshot {snap:users}", "--size 1"]),
    ("volume ls", &[""]),
    ("volume show", &["{vol:overlay}"]),
    ("volume attach", &["{vol:lock} {plain} --device /dev/vdb"]),
    ("volume detach", &["{vol:lock}"]),
    ("volume resize", &["{vol:in-use} --size 2"]),
    ("volume delete", &["{vol:in-use}", "{vol:.}"]),
    ("network create", &["lab{n}"]),
    ("network ls", &[""]),
    ("network show", &["default"]),
    ("network delete", &["default"]),
    ("network group create", &["default group{n}"]),
    ("network group allow", &["default default --cidr 10.0.0.0/8"]),
    ("network group revoke", &["default default --cidr 10.0.0.0/8"]),
    ("network group ls", &[""]),
    ("network group delete", &["default group"]),
    ("port", &["{plain}"]),
    ("region add", &["west{n} {out}/west"]),
    ("region ls", &[""]),
    ("region show", &["west"]),
    ("region rm", &["west"]),
    ("run", &["{run} -t spore.tiny", "demo --wait --timeout 60"]),
    ("ls", &["", "-o json", "{i}"]),
    ("show", &["{i}", "{i:control.sock}"]),
    (
        "logs",
        &["{i:console.log}", "{i:console.times} -t --since 1h", "{i:vmm.log} --vmm", "{plain} -f"],
    ),
    ("console", &["{i:control.sock}"]),
    ("ssh", &["{i:control.sock} --timeout 1s -- true"]),
    ("exec", &["{i:console.log} --timeout 1s -- true", "{i} --timeout 1s -- true"]),
    ("cp", &["--timeout 1s /dev/null {i:vsock.sock}:/tmp/x"]),
    ("ssh-config", &["{i}"]),
    ("__dial", &["{i:vsock.sock} 22 --timeout 1s"]),
    ("stop", &["{i} --timeout 1s", "{i} --force"]),
    ("start", &["{i}"]),
    ("reboot", &["{i} --timeout 1s", "{i} --force"]),
    ("terminate", &["{i}", "{i:lock}", "{i:.}"]),
    ("wait", &["{plain} --timeout 1s"]),
    ("tag", &["{i:lock} a=b", "{vol:lock} a=b", "{image:lock} a=b"]),
    ("untag", &["{i:lock} a"]),
    ("product accept", &["code-{n}"]),
    ("product cancel", &["code-1"]),
    ("product ls", &[""]),
    ("status", &["", "{i}"]),
    // It writes the caller's own unit, which is no part of a store.
    ("autostart enable", &[]),
    ("autostart status", &[""]),
    ("autostart start", &[""]),
    ("autostart disable", &[""]),
    ("stats", &["", "{i}"]),
    // It ends by ^C only; what it opens, `stats` opens too.
    ("top", &[]),
    ("usage", &[""]),
    ("events", &[""]),
    ("store share", &[""]),
    ("store admit", &["64012 64013"]),
    ("modify", &["{i:lock} -t t3.small", "{i:user-data} --user-data x"]),
    ("prune", &["-y", "--all --dry-run", "--all -y"]),
    ("df", &[""]),
    ("doctor", &[""]),
    ("completions", &["bash"]),
];

/// The command lines of one user.
pub fn lines(world: &World, uid: u32) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for (verb, templates) in TABLE {
        // It starts a guest and takes its time for that; what it opens, `run` opens too.
        if *verb == "doctor" {
            continue;
        }
        for template in *templates {
            for line in expanded(world, template) {
                let line = line
                    .replace("{n}", &format!("{}-{uid}", lines.len()))
                    .replace("{file}", &world.file("disk"))
                    .replace("{kernel}", &world.file("kernel"))
                    .replace("{plain}", &salt::instance_id(salt::PLAIN))
                    .replace("{out}", &world.out(uid));
                let words = verb.split(' ').chain(line.split_whitespace());
                lines.push(words.map(str::to_owned).collect());
            }
        }
    }
    lines
}

/// The template for each of what its first placeholder stands for.
fn expanded(world: &World, template: &str) -> Vec<String> {
    let each = |token: &str, ids: Vec<String>| -> Vec<String> {
        ids.iter().map(|id| template.replace(token, id)).collect()
    };
    let Some(start) = template.find('{') else { return vec![template.to_owned()] };
    let Some(end) = template[start..].find('}').map(|end| start + end + 1) else { return vec![] };
    let token = &template[start..end];
    match token[1..token.len() - 1].split_once(':') {
        Some(("run", first)) => {
            let first = first.parse().unwrap();
            each(token, world.runnable().into_iter().skip(first).step_by(3).collect())
        }
        Some((kind, place)) => each(token, world.salted(kind, place)),
        None => match token {
            "{i}" => each(token, vec![world.readable_instances().join(" ")]),
            "{run}" => each(token, world.runnable()),
            "{bundle}" => each(token, world.bundles()),
            "{salt}" => each(token, world.files()),
            _ => vec![template.to_owned()],
        },
    }
}
