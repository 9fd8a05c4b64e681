//! `backstay address`.

use super::Global;
use super::connect;
use crate::api::body::{Addresses, GroupAddress};
use crate::api::view::AddressCondition;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{Tone, Ui};
use crate::render::layout::{Block, Cell};
use crate::render::status::address_words;

/// Commands about addresses.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Show which node has each address
    Status,
}

pub(super) fn run(command: &Command, global: &Global, ui: &Ui) -> Outcome {
    match command {
        Command::Status => status(global, ui),
    }
}

fn status(global: &Global, ui: &Ui) -> Outcome {
    let client = connect::client(global)?;
    let addresses: Addresses = client.get("/api/v1/addresses").map_err(|error| {
        error
            .failure("read the state of the addresses")
            .exit(Exit::Unknown)
    })?;
    ui.document(&addresses, |ui| table(ui, &addresses.addresses))?;
    let held = |one: &GroupAddress| one.address.holder.is_some();
    Ok(if addresses.addresses.iter().all(held) {
        Exit::Ready
    } else {
        Exit::Down
    })
}

fn table(ui: &Ui, addresses: &[GroupAddress]) -> String {
    let mut block = Block::new("");
    let heads = ["ADDRESS", "GROUP", "HOLDER", "DRIVER", "STATE HERE"];
    block.row(heads.map(|head| Cell::toned(Tone::Dim, head)));
    for one in addresses {
        let address = &one.address;
        let tone = match address.state {
            AddressCondition::Held => Tone::Good,
            AddressCondition::Elsewhere => Tone::Dim,
            AddressCondition::Gated | AddressCondition::Released => Tone::Warn,
            AddressCondition::Failed => Tone::Bad,
        };
        block.row([
            Cell::toned(Tone::Strong, address.ip.to_string()),
            one.group.as_str().into(),
            address.holder.as_deref().unwrap_or("nobody").into(),
            address.driver.as_str().into(),
            Cell::toned(tone, address_words(address.state)),
        ]);
    }
    block.draw(ui, 0)
}
