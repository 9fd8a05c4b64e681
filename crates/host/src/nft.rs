//! The address gate (R12): the kernel lets a group's addresses through only while a lease runs.
//!
//! ```text
//! table netdev backstay_<group>
//!   set alive4 { ipv4_addr, timeout }      an element's timeout is what is left of the lease
//!   ingress:  to an address of the group, and it is not in alive4 -> drop   (IPv4; ARP that asks for it)
//!   egress: from an address of the group, and it is not in alive4 -> drop   (IPv4; ARP that speaks for it)
//! ```
//! The direction matters: a standby drops what comes *to* the address and what goes out *from* it, but may itself be a
//! client of the address, hear its announcements, and probe whether another host holds it. All else passes untouched.
//!
//! The table is set up once with `nft`. A renewal is one netlink batch, without another process: delete the element and
//! add it with a new timeout, atomically. Since deleting an expired element fails the batch, a renewal can extend the
//! lease but never bring an ended one back, however late it comes: a process that was stopped in between finds out.
//! Opening a closed gate is a step of its own ([`Gate::open`]).
//!
//! Timeouts are relative, leases are not: the clock is read right before and after each batch, and if more than
//! [`SLACK`] passed in between, the gate is set again or closed. The element's timeout is shortened by [`SLACK`].

use crate::clock;
use crate::netlink::{Family, Message, NetlinkError, Socket, attributes};
use rustix::io::Errno;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;
use wire::Time;

/// How much earlier than the lease the gate closes: covers the time between reading the clock and the kernel's start of
/// the timeout.
pub const SLACK: Duration = Duration::from_millis(5);
/// How often a renewal that took longer than [`SLACK`] is repeated before the gate is closed.
const TRIES_MAX: u32 = 3;

// include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_DELTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 2;
const NFT_MSG_NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 12;
const NFT_MSG_GETSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 13;
const NFT_MSG_DELSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 14;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
const NFTA_DATA_VALUE: u16 = 1;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_NETDEV: u8 = 5;
const NLM_F_CREATE: u16 = 0x400;

/// What a group's gate guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatePlan {
    /// The group; the table is `backstay_<group>`.
    pub group: String,
    /// The interfaces on which the addresses could be reached. Linux answers for any of its addresses on any interface,
    /// so this should name all that lead outside, not only the one that carries the address.
    pub interfaces: Vec<String>,
    /// The group's addresses.
    pub addresses: Vec<IpAddr>,
}

/// The gate could not be set up or moved.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A name that cannot stand in a rule.
    #[error("{name:?} cannot be the name of a gate's group or interface")]
    Name {
        /// The name.
        name: String,
    },
    /// Not supported yet.
    #[error("{ip} cannot be guarded: the gate knows IPv4 addresses only")]
    Family {
        /// The address.
        ip: IpAddr,
    },
    /// `nft` is missing or cannot be run.
    #[error("cannot run nft; install nftables")]
    NoNft(#[source] io::Error),
    /// `nft` refused.
    #[error("nft refused the gate of group {group}: {answer}")]
    Nft {
        /// The group.
        group: String,
        /// What it said, shortened.
        answer: String,
    },
    /// The kernel could not be asked, or refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The machine is so slow that a timeout could not be set within [`SLACK`]; the gate was closed.
    #[error("the gate could not be moved in time and was closed")]
    TooSlow,
}

/// Where a renewal or an opening left the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Open until the lease ends.
    Open,
    /// Closed: the lease had ended, or the gate was closed before the renewal came.
    Closed,
}

/// A group's gate. The kernel's part of it outlives this process.
#[derive(Debug)]
pub struct Gate {
    table: String,
    addresses: Vec<[u8; 4]>,
    socket: Socket,
}

impl Gate {
    /// Sets the gate up: closed if it is new, as it was if it is there already (a restarted daemon interrupts nothing). If
    /// its interfaces changed it is made anew, closed.
    ///
    /// # Errors
    /// [`GateError`].
    pub fn install(plan: &GatePlan) -> Result<Self, GateError> {
        let gate = Self::attach(plan)?;
        let script = script(&gate.table, plan)?;
        if nft(&plan.group, &script).is_err() {
            let table = &gate.table;
            let anew = format!("add table netdev {table}\ndelete table netdev {table}\n{script}");
            nft(&plan.group, &anew)?;
        }
        Ok(gate)
    }

    /// Takes hold of a gate that another process set up, without a look whether it is there.
    ///
    /// # Errors
    /// [`GateError`].
    pub fn attach(plan: &GatePlan) -> Result<Self, GateError> {
        let addresses = plan
            .addresses
            .iter()
            .map(|ip| match ip {
                IpAddr::V4(v4) => Ok(v4.octets()),
                IpAddr::V6(_) => Err(GateError::Family { ip: *ip }),
            })
            .collect::<Result<_, _>>()?;
        let table = table_name(&plan.group)?;
        Ok(Self {
            table,
            addresses,
            socket: Socket::open(Family::Netfilter)?,
        })
    }

    /// Opens the gate until the lease ends, whether it was open or not.
    ///
    /// # Errors
    /// [`GateError`]: the gate may be in its old state, which ends by itself.
    pub fn open(&mut self, until: Time) -> Result<Passage, GateError> {
        self.set(until, Self::opening)
    }

    /// Extends (or shortens) an open gate to the lease's new end. One that closed meanwhile stays closed: look at the
    /// lease again before [`Gate::open`].
    ///
    /// # Errors
    /// [`GateError`]: the gate may be in its old state, which ends by itself.
    pub fn renew(&mut self, until: Time) -> Result<Passage, GateError> {
        self.set(until, Self::renewal)
    }

    /// Closes the gate at once.
    ///
    /// # Errors
    /// [`GateError`]: the gate may be open until its timeout.
    pub fn close(&mut self) -> Result<(), GateError> {
        let flush = self.elements(NFT_MSG_DELSETELEM, 0);
        self.batch("close the gate", vec![flush])?;
        Ok(())
    }

    /// How long each address stays open; closed ones are missing. [`Duration::MAX`]: without end.
    ///
    /// # Errors
    /// [`GateError`].
    pub fn left(&mut self) -> Result<Vec<(IpAddr, Duration)>, GateError> {
        let request = self.elements(NFT_MSG_GETSETELEM, 0);
        let mut found = Vec::new();
        self.socket.dump("list the gate", request, |body| {
            for (kind, list) in attributes(body.get(4..).unwrap_or(&[])) {
                if kind == NFTA_SET_ELEM_LIST_ELEMENTS {
                    found.extend(attributes(list).filter_map(|(_, element)| parse(element)));
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Removes the gate, if it is there: the addresses are guarded no more. Only after they were taken off the interface.
    ///
    /// # Errors
    /// [`GateError`].
    pub fn remove(mut self) -> Result<(), GateError> {
        let request = Message::new(NFT_MSG_DELTABLE, 0)
            .raw(&[NFPROTO_NETDEV, 0, 0, 0])
            .text(NFTA_TABLE_NAME, &self.table);
        match self.batch("remove the gate", vec![request]) {
            Err(e) if e.errno() != Some(Errno::NOENT) => Err(e.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn set(
        &mut self,
        until: Time,
        messages: fn(&Self, Option<Duration>) -> Vec<Message>,
    ) -> Result<Passage, GateError> {
        for _ in 0..TRIES_MAX {
            let before = clock::now();
            let timeout = match until {
                Time::MAX => None,
                until => Some(until.since(before).saturating_sub(SLACK)),
            };
            if timeout.is_some_and(|timeout| timeout.as_millis() == 0) {
                self.close()?;
                return Ok(Passage::Closed);
            }
            let batch = messages(self, timeout);
            match self.batch("move the gate", batch) {
                Ok(()) => {}
                Err(e) if e.errno() == Some(Errno::NOENT) && self.exists()? => {
                    return Ok(Passage::Closed);
                }
                Err(e) => return Err(e.into()),
            }
            if timeout.is_none() || clock::now().since(before) <= SLACK {
                return Ok(Passage::Open);
            }
        }
        self.close()?;
        Err(GateError::TooSlow)
    }

    /// Tells "the element is gone" from "the table is gone".
    fn exists(&mut self) -> Result<bool, GateError> {
        self.left().map(|_| true)
    }

    fn opening(&self, timeout: Option<Duration>) -> Vec<Message> {
        vec![self.elements(NFT_MSG_DELSETELEM, 0), self.addition(timeout)]
    }

    fn renewal(&self, timeout: Option<Duration>) -> Vec<Message> {
        let removal = self.elements(NFT_MSG_DELSETELEM, 0);
        vec![self.with_addresses(removal, None), self.addition(timeout)]
    }

    fn addition(&self, timeout: Option<Duration>) -> Message {
        self.with_addresses(self.elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE), timeout)
    }

    /// A request about the set; without elements in it a removal means all of them.
    fn elements(&self, kind: u16, flags: u16) -> Message {
        Message::new(kind, flags)
            .raw(&[NFPROTO_NETDEV, 0, 0, 0])
            .text(NFTA_SET_ELEM_LIST_TABLE, &self.table)
            .text(NFTA_SET_ELEM_LIST_SET, "alive4")
    }

    fn with_addresses(&self, message: Message, timeout: Option<Duration>) -> Message {
        message.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            self.addresses.iter().fold(list, |list, ip| {
                list.nested(NFTA_LIST_ELEM, |element| {
                    let element =
                        element.nested(NFTA_SET_ELEM_KEY, |key| key.attribute(NFTA_DATA_VALUE, ip));
                    match timeout {
                        None => element,
                        Some(timeout) => {
                            let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                            element.attribute(NFTA_SET_ELEM_TIMEOUT, &millis.to_be_bytes())
                        }
                    }
                })
            })
        })
    }

    /// All or nothing.
    fn batch(&mut self, doing: &'static str, messages: Vec<Message>) -> Result<(), NetlinkError> {
        let subsystem = NFNL_SUBSYS_NFTABLES.to_be_bytes();
        let frame = [NFPROTO_UNSPEC, 0, subsystem[0], subsystem[1]];
        let mut all = vec![Message::new(NFNL_MSG_BATCH_BEGIN, 0).raw(&frame)];
        all.extend(messages);
        let last = all.pop().map(Message::acknowledged);
        all.extend(last);
        all.push(Message::new(NFNL_MSG_BATCH_END, 0).raw(&frame));
        self.socket.batch(doing, all)
    }
}

fn parse(element: &[u8]) -> Option<(IpAddr, Duration)> {
    let mut ip = None;
    let mut left = Duration::MAX;
    for (kind, payload) in attributes(element) {
        match kind {
            NFTA_SET_ELEM_KEY => {
                let (_, value) = attributes(payload).next()?;
                ip = Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?));
            }
            NFTA_SET_ELEM_EXPIRATION => {
                left = Duration::from_millis(u64::from_be_bytes(payload.try_into().ok()?));
            }
            _ => {}
        }
    }
    Some((ip?, left))
}

fn table_name(group: &str) -> Result<String, GateError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.';
    if group.is_empty() || group.len() > 64 || !group.bytes().all(plain) {
        return Err(GateError::Name {
            name: group.to_owned(),
        });
    }
    Ok(format!("backstay_{group}"))
}

/// The whole table, in `nft`'s language; repeating it changes nothing.
fn script(table: &str, plan: &GatePlan) -> Result<String, GateError> {
    let mut devices = Vec::new();
    for name in &plan.interfaces {
        let plain = |b: u8| b.is_ascii_graphic() && !b"\"\\;{}#$".contains(&b);
        if name.is_empty() || name.len() > 15 || !name.bytes().all(plain) {
            return Err(GateError::Name { name: name.clone() });
        }
        devices.push(format!("\"{name}\""));
    }
    let devices = devices.join(", ");
    let mut text = format!(
        "add table netdev {table}\n\
         add set netdev {table} alive4 {{ type ipv4_addr; flags timeout; }}\n"
    );
    for hook in ["ingress", "egress"] {
        text += &format!(
            "add chain netdev {table} {hook}_gate {{ type filter hook {hook} devices = {{ {devices} }} \
             priority -300; policy accept; }}\nflush chain netdev {table} {hook}_gate\n"
        );
    }
    for ip in &plan.addresses {
        for rule in [
            format!("ingress_gate ip daddr {ip} ip daddr != @alive4"),
            format!("ingress_gate arp daddr ip {ip} arp saddr ip != {ip} arp daddr ip != @alive4"),
            format!("egress_gate ip saddr {ip} ip saddr != @alive4"),
            format!("egress_gate arp saddr ip {ip} arp saddr ip != @alive4"),
        ] {
            text += &format!("add rule netdev {table} {rule} counter drop\n");
        }
    }
    Ok(text)
}

fn nft(group: &str, script: &str) -> Result<(), GateError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(GateError::NoNft)?;
    if let Some(mut input) = child.stdin.take() {
        // If nft ended early, its exit status and answer tell why.
        input.write_all(script.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(GateError::NoNft)?;
    if output.status.success() {
        return Ok(());
    }
    let answer: String = String::from_utf8_lossy(&output.stderr)
        .chars()
        .take(300)
        .collect();
    Err(GateError::Nft {
        group: group.to_owned(),
        answer: answer.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests;
