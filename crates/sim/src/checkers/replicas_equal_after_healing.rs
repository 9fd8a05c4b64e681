//! G5: after healing the replicas are equal, byte by byte.

/// Its name in reports.
pub(crate) const NAME: &str = "replicas_equal_after_healing";

/// Compares the data areas of two disks.
pub(crate) fn check(a: &[u8], b: &[u8], data_bytes: u64) -> Result<(), String> {
    let len = usize::try_from(data_bytes)
        .unwrap_or(0)
        .min(a.len())
        .min(b.len());
    let differing: Vec<usize> = a[..len]
        .chunks(512)
        .zip(b[..len].chunks(512))
        .enumerate()
        .filter(|(_, (x, y))| x != y)
        .map(|(index, _)| index)
        .collect();
    let Some(first) = differing.first() else {
        return Ok(());
    };
    let word = |disk: &[u8]| {
        crate::oracle::content_of(&disk[first * 512..first * 512 + 512])
            .map_or_else(|| "torn".to_owned(), |c| format!("{c:x}"))
    };
    Err(format!(
        "{} sectors differ, the first is {first}: {} on one, {} on the other",
        differing.len(),
        word(a),
        word(b)
    ))
}
