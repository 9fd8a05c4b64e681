//! Which blocks of a volume its file system does not use: of ext2, ext3 and ext4, as the tools of e2fsprogs see it.
//!
//! What is called unused here is overwritten with zeros, so the answer must be beyond doubt. `e2fsck -fn` first compares the
//! block bitmaps with what files and directories really use, and changes nothing; `dumpe2fs` then lists the free ones, and its own
//! count of them must agree with the list.

use crate::failure::Failure;
use crate::lab::tools::find_program;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use wire::ByteRange;
use wire::layout::{BITS_PER_BLOCK, CONTENT_BYTES};
use wire::units::BLOCK_BYTES;

/// Blocks of 4 KiB that a file system does not use: runs in rising order with something between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unused {
    runs: Vec<Range<u64>>,
}

/// What an ext file system's superblock says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes of a block.
    pub(super) size: u64,
    /// Blocks.
    pub(super) count: u64,
}

impl Unused {
    /// Those of the ext file system on `path`, which nobody may have mounted.
    ///
    /// # Errors
    /// When it is not as `known`, is damaged or was not unmounted cleanly, or a tool is missing.
    pub(super) fn of_ext(path: &Path, known: Geometry) -> Result<Self, Failure> {
        let refused = |why: String| {
            Failure::new(format!("cannot tell which blocks of {} are used", path.display()))
                .cause(why)
                .hint(format!(
                    "`e2fsck -f {}` repairs a file system that is not mounted; without --used-only everything is copied",
                    path.display()
                ))
        };
        let checked = run("e2fsck", "-fn", path)?;
        if checked.code != Some(0) {
            return Err(refused(format!(
                "e2fsck finds something wrong with it: {}",
                checked.last_line()
            )));
        }
        let listed = run("dumpe2fs", "", path)?;
        if listed.code != Some(0) {
            return Err(refused(format!("dumpe2fs failed: {}", listed.last_line())));
        }
        Self::parse(&listed.out, known).map_err(|why| refused(why.to_owned()))
    }

    /// Out of what `dumpe2fs` prints.
    fn parse<'t>(text: &'t str, known: Geometry) -> Result<Self, &'static str> {
        const FORM: &str = "dumpe2fs prints something unexpected";
        let (head, groups) = text.split_once("\nGroup ").ok_or(FORM)?;
        let field = |name: &str| {
            let values = |text: &'t str| text.lines().filter_map(|line| line.strip_prefix(name));
            // A label is printed as it is, and may look like a field.
            match (values(text).count(), values(head).next()) {
                (1, Some(value)) => Ok(value.trim()),
                _ => Err(FORM),
            }
        };
        let number = |name| field(name)?.parse::<u64>().map_err(|_| FORM);
        let features = field("Filesystem features:")?;
        if features
            .split(' ')
            .any(|feature| feature == "needs_recovery")
        {
            return Err("its journal was not replayed: it was not unmounted");
        }
        if field("Filesystem state:")? != "clean" {
            return Err("it was not unmounted cleanly");
        }
        if features.split(' ').any(|feature| feature == "bigalloc") {
            return Err("it allocates clusters of blocks (bigalloc)");
        }
        let (size, count) = (number("Block size:")?, number("Block count:")?);
        if (Geometry { size, count }) != known {
            return Err(
                "dumpe2fs and the superblock do not agree on the number and size of its blocks",
            );
        }
        let lists = groups
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("Free blocks:"));
        let mut runs: Vec<Range<u64>> = Vec::new();
        for run in lists.flat_map(|list| list.split(',')) {
            let run = run.trim();
            if run.is_empty() {
                continue;
            }
            let run = blocks(run).filter(|run| run.start < run.end && run.end <= count);
            let run = run.ok_or(FORM)?;
            match runs.last_mut() {
                Some(last) if run.start < last.end => return Err(FORM),
                Some(last) if run.start == last.end => last.end = run.end,
                Some(_) | None => runs.push(run),
            }
        }
        let free: u64 = runs.iter().map(|run| run.end - run.start).sum();
        if free != number("Free blocks:")? {
            return Err("the lists of its free blocks do not agree with their number");
        }
        Self::of_blocks(&runs, size).ok_or(FORM)
    }

    /// Whole blocks of 4 KiB within these runs of blocks of another size; the file system uses the rest.
    fn of_blocks(runs: &[Range<u64>], size: u64) -> Option<Self> {
        let mut whole = Vec::new();
        for run in runs {
            let start = run.start.checked_mul(size)?.div_ceil(BLOCK_BYTES);
            let end = run.end.checked_mul(size)? / BLOCK_BYTES;
            if start < end {
                whole.push(start..end);
            }
        }
        Some(Self { runs: whole })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum::<u64>() * BLOCK_BYTES
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.runs.iter().filter_map(|run| {
            ByteRange::new(run.start * BLOCK_BYTES, (run.end - run.start) * BLOCK_BYTES)
        })
    }

    /// The content of block `index` of a bitmap that marks all of `blocks` but these.
    pub(super) fn marks(&self, index: u64, blocks: u64) -> Vec<u8> {
        let first = index * BITS_PER_BLOCK;
        let end = (first + BITS_PER_BLOCK).min(blocks);
        let mut bits = vec![0_u8; CONTENT_BYTES];
        let mut mark = |run: Range<u64>| {
            for block in run.start.max(first)..run.end.min(end) {
                if let Ok(at) = usize::try_from(block - first) {
                    bits[at / 8] |= 1 << (at % 8);
                }
            }
        };
        let mut used_from = first;
        let skip = self.runs.partition_point(|run| run.end <= first);
        for run in self.runs[skip..].iter().take_while(|run| run.start < end) {
            mark(used_from..run.start);
            used_from = run.end;
        }
        mark(used_from..end);
        bits
    }
}

/// `7` or `7-9`.
fn blocks(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let last: u64 = last.parse().ok()?;
    Some(first.parse().ok()?..last.checked_add(1)?)
}

/// What a tool said.
struct Said {
    code: Option<i32>,
    out: String,
    talk: String,
}

impl Said {
    fn last_line(&self) -> &str {
        let lines = self.out.lines().chain(self.talk.lines());
        let mut lines = lines.map(str::trim).filter(|line| !line.is_empty());
        lines.next_back().unwrap_or("it says nothing")
    }
}

fn run(program: &str, options: &str, path: &Path) -> Result<Said, Failure> {
    let missing = |cause: String| {
        Failure::new(format!("--used-only needs the program {program}"))
            .cause(cause)
            .hint("apt-get install e2fsprogs")
    };
    let found = find_program(program).ok_or_else(|| missing("it is not in PATH".to_owned()))?;
    let output = Command::new(found)
        .args(Some(options).filter(|options| !options.is_empty()))
        .arg("--")
        .arg(path)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| missing(error.to_string()))?;
    Ok(Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        talk: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Geometry = Geometry {
        size: 1024,
        count: 40,
    };

    fn listing(features: &str, state: &str, free: u64, first: &str) -> String {
        format!(
            "Filesystem volume name:   <none>\nFilesystem features:      has_journal {features} extent\n\
             Filesystem state:         {state}\nBlock count:              40\nFree blocks:              {free}\n\
             First block:              1\nBlock size:               1024\n\n\n\
             Group 0: (Blocks 1-20) csum 0x1b7c\n  Primary superblock at 1, Group descriptors at 2-2\n  \
             9 free blocks, 5 free inodes, 2 directories\n  Free blocks: {first}\n  Free inodes: 12-16\n\
             Group 1: (Blocks 21-39) csum 0x1b7d\n  2 free blocks, 5 free inodes\n  Free blocks: 21-22\n  \
             Free inodes: \n"
        )
    }

    #[test]
    fn whole_blocks_of_free_runs_are_unused() {
        let unused =
            Unused::parse(&listing("filetype", "clean", 11, "5, 7-12, 19-20"), KNOWN).unwrap();
        // Bytes 7 KiB to 13 KiB have one whole block in them; 19 KiB to 23 KiB none.
        let ranges: Vec<_> = unused.ranges().collect();
        assert_eq!(ranges, [ByteRange::new(8192, 4096).unwrap()]);
        assert_eq!(unused.bytes(), 4096);
    }

    #[test]
    fn what_is_not_beyond_doubt_is_refused() {
        let good = || listing("filetype", "clean", 11, "5, 7-12, 19-20");
        for bad in [
            listing("needs_recovery", "clean", 11, "5, 7-12, 19-20"),
            listing("bigalloc", "clean", 11, "5, 7-12, 19-20"),
            listing("filetype", "not clean with errors", 11, "5, 7-12, 19-20"),
            listing("filetype", "clean", 12, "5, 7-12, 19-20"),
            listing("filetype", "clean", 11, "7-12, 5, 19-20"),
            listing("filetype", "clean", 11, "5, 12-7, 19-20"),
            listing("filetype", "clean", 11, "5, x-12, 19-20"),
            listing("filetype", "clean", 40, "5-40"),
            good().replace("<none>", "\nBlock size:1024"),
            good().replace("<none>", "\nFree blocks: 11"),
            good().replace("<none>", "\nGroup 0:"),
            good().replace("<none>", "\nBlock count:40\nGroup 0:"),
            good().replace("1024\n\n", "2048\n\n"),
            good().replace("count:              40", "count:              41"),
            good().replace("Group ", "Gruppe "),
            good().replace("Block size:", "Blockgröße:"),
        ] {
            assert!(Unused::parse(&bad, KNOWN).is_err(), "{bad}");
        }
        assert!(Unused::parse(&good(), KNOWN).is_ok());
    }

    #[test]
    fn everything_but_the_unused_is_marked() {
        let last = BITS_PER_BLOCK - 1;
        let blocks = BITS_PER_BLOCK + 100;
        let unused = Unused {
            runs: vec![1..3, last..BITS_PER_BLOCK + 2, blocks - 1..blocks],
        };
        let marked = |block: u64| {
            let bits = unused.marks(block / BITS_PER_BLOCK, blocks);
            let at = usize::try_from(block % BITS_PER_BLOCK).unwrap();
            bits[at / 8] >> (at % 8) & 1 == 1
        };
        for block in 0..2 * BITS_PER_BLOCK {
            let free = unused.runs.iter().any(|run| run.contains(&block));
            if block < 8 || block.abs_diff(BITS_PER_BLOCK) < 110 {
                assert_eq!(marked(block), !free && block < blocks, "block {block}");
            }
        }
    }
}
