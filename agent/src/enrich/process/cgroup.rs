// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads a process's cgroup path: its container, its systemd unit.
//!
//! In: the path, root first. Out: a container id, or the name of the unit that runs this program. It knows which units
//! run programs of many services, and has no name for those.

/// The id of the innermost container: 64 hex digits, in the forms
/// `docker/<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`,
/// `kubepods/…/pod<uid>/<id>`, and `<slice>:cri-containerd:<id>` of a cgroup driver without slices.
pub(super) fn container(path: &str) -> Option<&str> {
    container_at(path).map(|(_, id)| id)
}

/// The systemd unit whose program this is, as a name: `/system.slice/shop.service` → `shop`, without the instance of
/// a template (`shop@8080.service`), which `service.instance.id` tells apart.
pub(super) fn unit(path: &str) -> Option<String> {
    // What is outside the innermost container is the container's business: the unit of its engine.
    let inside = container_at(path).map_or(path, |(end, _)| &path[end..]);
    let components: Vec<&str> = inside.split('/').collect();
    let at = components.iter().rposition(|component| component.ends_with(".service"))?;
    let (before, after) = (&components[..at], &components[at + 1..]);
    // Scopes hold what a user's session or a desktop started: anything. The session slice holds the desktop itself.
    if after.iter().any(|component| component.ends_with(".scope")) || before.contains(&"session.slice") {
        return None;
    }
    let name = components[at].strip_suffix(".service")?;
    let name = unescape(name.split('@').next().unwrap_or(name));
    let shared = SHARED_UNITS.contains(&name.as_str()) || SHARED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let shared = shared || is_transient(&name);
    (!name.is_empty() && !shared).then_some(name)
}

/// A unit that `systemd-run` named: `run-u42`, `run-p1-i2`, `run-r<hex>`.
fn is_transient(name: &str) -> bool {
    let Some((kind, number)) = name.strip_prefix("run-").and_then(|rest| rest.split_at_checked(1)) else {
        return false;
    };
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    match kind {
        "u" => digits(number, 10),
        "p" => number.split("-i").all(|part| digits(part, 10)),
        "r" => digits(number, 16),
        _ => false,
    }
}

/// Where the innermost container's component ends, and its id.
fn container_at(path: &str) -> Option<(usize, &str)> {
    let mut end = path.len();
    for component in path.rsplit('/') {
        let bare = component.strip_suffix(".scope").unwrap_or(component);
        let id = bare.rsplit(['-', ':']).next().unwrap_or(bare);
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        // The monitor of a container (`libpod-conmon-<id>.scope`) runs outside it.
        if id.len() == CONTAINER_ID_DIGITS && id.bytes().all(hex) && !bare.contains("conmon-") {
            return Some((end, id));
        }
        end = end.saturating_sub(component.len() + 1);
    }
    None
}

/// Undoes `\x2d`, which systemd writes for a `-` that does not separate (systemd.unit(5), "String escaping").
fn unescape(name: &str) -> String {
    let mut rest = name;
    let mut plain = String::with_capacity(name.len());
    while let Some((before, after)) = rest.split_once("\\x") {
        plain.push_str(before);
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.filter(u8::is_ascii_graphic) {
            Some(code) => {
                plain.push(code.into());
                rest = &after[2..];
            }
            None => {
                plain.push_str("\\x");
                rest = after;
            }
        }
    }
    plain + rest
}

/// SHA-256 in hex.
const CONTAINER_ID_DIGITS: usize = 64;

/// Units that run programs of many services, none of which has the unit's name: logins, schedulers, supervisors,
/// container engines, CI runners and remote administration, desktops.
const SHARED_UNITS: &[&str] = &[
    "amazon-ssm-agent",
    "anacron",
    "atd",
    "autovt",
    "buildkite-agent",
    "circusd",
    "cloud-final",
    "cloud-init",
    "code-server",
    "cockpit",
    "console-getty",
    "containerd",
    "cri-docker",
    "crio",
    "cron",
    "crond",
    "cronie",
    "dbus",
    "dbus-broker",
    "display-manager",
    "docker",
    "emacs",
    "fcron",
    "gdm",
    "gdm3",
    "getty",
    "gitlab-runner",
    "gnome-terminal-server",
    "google-guest-agent",
    "google-startup-scripts",
    "incus",
    "inetd",
    "jenkins",
    "k3s",
    "k3s-agent",
    "kubelet",
    "libvirtd",
    "lightdm",
    "lxc",
    "lxcfs",
    "lxd",
    "monit",
    "nomad",
    "podman",
    "rc-local",
    "rke2-agent",
    "rke2-server",
    "runit",
    "runsvdir",
    "s6",
    "salt-minion",
    "screen",
    "sddm",
    "serial-getty",
    "ssh",
    "sshd",
    "supervisor",
    "supervisord",
    "tmux",
    "user",
    "waagent",
    "walinuxagent",
    "xinetd",
];

/// As [`SHARED_UNITS`], where a name follows: desktop applications (terminals among them), CI runners, process
/// managers, snaps of engines.
const SHARED_PREFIXES: &[&str] = &[
    "actions.runner.",
    "app-",
    "dbus-",
    "org.gnome.",
    "plasma-",
    "pm2-",
    "snap.docker.",
    "snap.lxd.",
    "snap.microk8s.",
];

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn containers_are_found_by_their_ids() {
        for (path, found) in [
            ("/docker/ID", true),
            ("/system.slice/docker-ID.scope", true),
            ("/system.slice/docker-ID.scope/init", true),
            ("/kubepods/besteffort/pod7a1c2d/ID", true),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7a_1c.slice/cri-containerd-ID.scope",
                true,
            ),
            ("/kubepods.slice/kubepods-pod7a.slice/crio-ID.scope", true),
            ("/kubepods.slice/kubepods-pod7a.slice/crio-conmon-ID.scope", false),
            ("/system.slice/containerd.service/kubepods-besteffort-pod7a.slice:cri-containerd:ID", true),
            ("/machine.slice/libpod-ID.scope/container", true),
            ("/machine.slice/libpod-conmon-ID.scope", false),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container", true),
            ("/../../kubepods-pod7a.slice/cri-containerd-ID.scope", true),
            ("/system.slice/nerdctl-ID.scope", true),
            ("/k8s.io/ID", true),
            ("/ecs/0f1e/ID", true),
            ("/system.slice/shop.service", false),
            ("/machine.slice/ID0", false),
            ("/", false),
            ("", false),
        ] {
            let path = path.replace("ID", ID);
            assert_eq!(container(&path), found.then_some(ID), "{path}");
        }
        assert_eq!(container(&format!("/docker/{ID}/docker/{}", ID.replace('0', "f"))), Some(&*ID.replace('0', "f")));
        assert_eq!(container(&format!("/docker/{}", ID.to_uppercase())), None);
    }

    #[test]
    fn units_name_the_programs_that_are_theirs() {
        for (path, name) in [
            ("/system.slice/shop.service", Some("shop")),
            ("/system.slice/shop.service/worker", Some("shop")),
            ("/system.slice/system-shop.slice/shop@8080.service", Some("shop")),
            ("/system.slice/system-postgresql.slice/postgresql@14-main.service", Some("postgresql")),
            ("/workload.slice/shop.service", Some("shop")),
            (r"/system.slice/my\x2dshop.service", Some("my-shop")),
            (r"/system.slice/odd\x.service", Some(r"odd\x")),
            (r"/system.slice/odd\x00.service", Some(r"odd\x00")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service", Some("shop")),
            ("/user.slice/user-1000.slice/user@1000.service/shop.service", Some("shop")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox@1f.service", None),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1f.scope", None),
            ("/user.slice/user-1000.slice/user@1000.service/session.slice/shell.service", None),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", None),
            ("/user.slice/user-1000.slice/session-3.scope", None),
            ("/system.slice/ssh.service", None),
            ("/system.slice/cron.service", None),
            ("/system.slice/docker.service", None),
            ("/system.slice/system-getty.slice/getty@tty1.service", None),
            ("/system.slice/run-u42.service", None),
            ("/system.slice/run-r0123456789abcdef.service", None),
            ("/system.slice/run-p12-i34.service", None),
            ("/system.slice/run-prod.service", Some("run-prod")),
            ("/system.slice/run-.service", Some("run-")),
            ("/system.slice/pm2-deploy.service", None),
            ("/system.slice/docker-ID.scope", None),
            ("/system.slice/containerd.service/kubepods-pod7a.slice:cri-containerd:ID", None),
            ("/system.slice/shop.service/docker-ID.scope", None),
            ("/docker/ID/system.slice/shop.service", Some("shop")),
            ("/init.scope", None),
            ("/.service", None),
            ("/", None),
            ("", None),
        ] {
            let path = path.replace("ID", ID);
            assert_eq!(unit(&path).as_deref(), name, "{path}");
        }
    }
}
