//! G4: what serves is a point in the mirror's history, by its own metadata; whether it is the right one, the model says.

use wire::layout::{
    BlockKind, Layout, Newest, ReplicaState, SEALED_BYTES, Slot, Superblock, newest, open,
};

/// Looks at the metadata of a disk that begins to serve.
pub(crate) fn check(disk: &[u8]) -> Result<(), String> {
    let bytes = u64::try_from(disk.len()).unwrap_or(0);
    let block = |slot| {
        let from = usize::try_from(Layout::super_offset(bytes, slot)).unwrap_or(usize::MAX);
        let block = disk
            .get(from..from.saturating_add(SEALED_BYTES))
            .unwrap_or_default();
        open(BlockKind::Super, 0, block)
    };
    let Newest::Known(_, _, content) = newest(block(Slot::A), block(Slot::B)) else {
        return Err("its metadata cannot be read".to_owned());
    };
    match Superblock::parse(&content) {
        Err(fault) => Err(format!("its metadata is bad: {fault:?}")),
        Ok(found) => match found.state {
            ReplicaState::Origin | ReplicaState::Consistent => Ok(()),
            state @ (ReplicaState::Blank | ReplicaState::Inconsistent) => {
                Err(format!("its data is {state:?}"))
            }
        },
    }
}
