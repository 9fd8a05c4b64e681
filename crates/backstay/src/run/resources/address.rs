//! Driver `l2`: the address on the interface, and its neighbours told.
//!
//! Whether the address may be used is not decided here: the gate in the kernel holds it shut without a lease (R12).

use super::shared::Shared;
use crate::config::model::Address;
use crate::failure::Failure;
use host::address::Arp;
use host::keeper::Step;
use host::netlink::NetlinkError;
use host::netlink::route::{Assigned, Link, Routes};
use std::net::IpAddr;
use std::time::Duration;

/// How often other hosts are asked whether they hold the address, before it is taken.
const PROBES: u32 = 2;
/// How long their answer may take: in one subnet, a few milliseconds.
const PROBE_PAUSE: Duration = Duration::from_millis(15);

/// Puts the address on its interface, unless another host holds it.
pub(super) fn start(shared: &Shared, address: &Address) -> Result<Assigned, Failure> {
    let failed = |e: NetlinkError| refused(address, &e);
    let mut routes = Routes::open().map_err(failed)?;
    let link = interface(&mut routes, shared, address)?;
    let assigned = Assigned {
        index: link.index,
        ip: address.ip,
        prefix: address.prefix,
    };
    let is_there = routes.addresses().map_err(failed)?.contains(&assigned);
    if !is_there {
        refuse_if_held(&link, address)?;
        routes.add(assigned).map_err(failed)?;
    }
    announce(shared, &link, address.ip);
    tracing::info!(ip = %address.ip, interface = link.name, adopted = is_there, "address is up");
    Ok(assigned)
}

/// Takes the address off, on whatever interface it is; the neighbours hear nothing more.
pub(super) fn stop(shared: &Shared, address: &Address) -> Result<(), Failure> {
    shared.announcer.silence();
    let removed = find(shared).and_then(|found| {
        let mut routes = Routes::open()?;
        let mut ours = found
            .into_iter()
            .filter(|assigned| assigned.ip == address.ip);
        ours.try_for_each(|assigned| routes.remove(assigned))
    });
    removed.map_err(|e| {
        Failure::new(format!("cannot remove the address {}", address.ip)).from_error(&e)
    })
}

/// Puts the address back if somebody took it off the interface.
pub(super) fn keep(shared: &Shared, assigned: Assigned) -> Result<(), NetlinkError> {
    let mut routes = Routes::open()?;
    if routes.addresses()?.contains(&assigned) {
        return Ok(());
    }
    routes.add(assigned)?;
    tracing::warn!(ip = %assigned.ip, "the address was gone from its interface and was put back");
    if let Some(link) = routes
        .links()?
        .into_iter()
        .find(|link| link.index == assigned.index)
    {
        announce(shared, &link, assigned.ip);
    }
    Ok(())
}

/// Wherever the group's addresses are, on any interface.
pub(super) fn find(shared: &Shared) -> Result<Vec<Assigned>, NetlinkError> {
    let ours: Vec<IpAddr> = shared
        .plan
        .addresses()
        .map(|(_, address)| address.ip)
        .collect();
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    let mut assigned = Routes::open()?.addresses()?;
    assigned.retain(|assigned| ours.contains(&assigned.ip));
    Ok(assigned)
}

/// What the keeper does instead of [`stop`].
pub(super) fn steps(assigned: Assigned) -> Vec<Step> {
    let Assigned { index, ip, prefix } = assigned;
    vec![Step::DropAddress {
        interface: index,
        ip,
        prefix,
    }]
}

fn interface(routes: &mut Routes, shared: &Shared, address: &Address) -> Result<Link, Failure> {
    let link = match &address.interface {
        Some(name) => routes.link(name),
        None => routes.link_with(shared.plan.service),
    };
    link.map_err(|e| {
        refused(address, &e).hint(
            "bring the interface of the service network up, or name one with `interface` in the address resource",
        )
    })
}

/// RFC 5227 §2.1: who takes an address that somebody uses harms both.
fn refuse_if_held(link: &Link, address: &Address) -> Result<(), Failure> {
    let (IpAddr::V4(ip), Some(mac)) = (address.ip, link.mac) else {
        return Ok(());
    };
    let found = Arp::open(link.index, mac).and_then(|arp| arp.find_holder(ip, PROBES, PROBE_PAUSE));
    match found {
        Ok(None) => Ok(()),
        Ok(Some(holder)) => {
            let mac = holder.map(|byte| format!("{byte:02x}")).join(":");
            Err(Failure::new(format!("cannot take the address {ip}"))
                .cause(format!("the host with Ethernet address {mac} answers for it on {}", link.name))
                .hint("find that host and take the address off it; the group's address belongs to nobody else"))
        }
        Err(error) => {
            // Without the probe the address is still guarded by the lease.
            tracing::warn!(%error, %ip, "nobody could be asked whether the address is in use");
            Ok(())
        }
    }
}

fn announce(shared: &Shared, link: &Link, ip: IpAddr) {
    let (IpAddr::V4(ip), Some(mac)) = (ip, link.mac) else {
        return;
    };
    match Arp::open(link.index, mac) {
        Ok(arp) => shared.announcer.announce(arp, ip),
        Err(error) => {
            tracing::warn!(%error, %ip, "the address is up, but its neighbours were not told");
        }
    }
}

fn refused(address: &Address, error: &NetlinkError) -> Failure {
    Failure::new(format!("cannot take the address {}", address.ip)).from_error(error)
}
