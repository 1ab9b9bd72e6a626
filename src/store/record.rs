//! The record beside a kept file: what the file is to become, and the state of its digest at a few offsets.
//!
//! ```text
//!   byte 0      1024     1536     2048     2560     3072
//!     | claims  | state  | state  | state  | state  |
//! ```
//!
//! **Claims** are lines, the last whole one counts: `SIZE DIGEST NAME LF`, where the digest is `-` until it is known. A
//! claim that comes to be known later is added, so that what was there before stays whole.
//!
//! **States** let an upload be resumed without reading what is held: `OFFSET ALGORITHM STATE BOOT SEAL LF`. The one with the
//! highest offset counts. Nobody reads the content again to see whether it is still what the state was computed from, so
//! **a state is written only when its content is synced**; `BOOT` is then `-`. Where nothing is synced it is the id of the
//! boot that the state was written in, and the state counts in that boot only: a power cut may have taken the content.
//!
//! Each state is a sector of its own with a checksum, the seal, so that a torn one is known as such. The seal covers the
//! first claim and the identity of the file too: after a power cut a record may be older than the file beside it, and no
//! state of another upload, or of an earlier file of this one, is taken for one of this file. So an upload that begins
//! anew begins a new file. The state from which the upload was resumed is not overwritten while the upload goes on: its
//! offset was told to the client.
//!
//! Knows bytes only. Reading and writing them, and the sync before, are the owner's.

use super::Target;
use crate::proto::{Algorithm, Digest, Hasher, Held, Promise};

/// Where the states begin, in bytes. More than two claims of the longest name.
const CLAIMS_BYTES: usize = 1024;
/// [`Record::STATE_BYTES`], where its reason stands.
const STATE_BYTES: usize = Record::STATE_BYTES;
/// One that was told, and the last three.
const STATES: usize = 4;
/// In the place of a boot: its content is synced.
const LASTS: &str = "-";

/// What its owner has to know of a record to add to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Checksum of the file's identity and of the first claim: a part of each seal.
    owner_sum: u32,
    /// The state that was resumed from.
    resumed: Option<usize>,
    /// The state to be overwritten next.
    next: usize,
}

/// The file beside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Tells it from other files, past and future ones.
    pub id: u32,
    /// In bytes.
    pub length: u64,
}

/// Bytes to be written to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where, counted from its beginning.
    pub at: u64,
    /// They cover a part of it, or all.
    pub bytes: Vec<u8>,
}

/// What an upload finds in its record.
#[derive(Debug)]
pub struct Found {
    /// To add to it.
    pub record: Record,
    /// What can be resumed. Content beyond it has to be cut off; without it, all content.
    pub held: Option<Held>,
    /// To be written before any content.
    pub patch: Option<Patch>,
}

impl Record {
    /// The most that a record takes, in bytes.
    pub const MAX_BYTES: usize = CLAIMS_BYTES + STATES * Self::STATE_BYTES;
    /// What one state takes, in bytes: a sector, which is written as a whole.
    pub const STATE_BYTES: usize = 512;

    /// What `target` finds in the record `bytes` beside this `content`, in this `boot`.
    pub fn find(bytes: &[u8], target: &Target, content: Content, boot: Option<&str>) -> Found {
        let wanted = claim_for(target);
        let claims = whole_lines(bytes.get(..CLAIMS_BYTES).unwrap_or(bytes));
        let latest = claims.split_inclusive('\n').next_back();
        if !latest.is_some_and(|latest| agree(latest, &wanted)) {
            return Self::anew(&wanted, content);
        }
        let is_news = known_digest(target).is_some() && latest != Some(&wanted);
        let more = if is_news { wanted.as_str() } else { "" };
        let owner_sum = owner_sum(content, claims);
        let length = content.length.min(target.size.unwrap_or(0));
        let counts = |held: &Held| {
            let algorithm = target.promise.map(|promise| promise.algorithm());
            algorithm == Some(held.hasher.algorithm()) && (1..=length).contains(&held.offset)
        };
        let states = (0..STATES).filter_map(|slot| Some((slot, read_state(bytes, slot, owner_sum, boot)?)));
        let Some((slot, held)) = states.filter(|(_, held)| counts(held)).max_by_key(|(_, held)| held.offset) else {
            return Self::anew(&[claims, more].concat(), content);
        };
        let record = Self { owner_sum, resumed: Some(slot), next: (slot + 1) % STATES };
        let patch =
            is_news.then(|| Patch { at: claims.len() as u64, bytes: padded(more, CLAIMS_BYTES - claims.len()) });
        Found { record, held: Some(held), patch }
    }

    /// Of an upload that begins at its first byte: no state is left.
    fn anew(claims: &str, content: Content) -> Found {
        let patch = Patch { at: 0, bytes: padded(claims, Self::MAX_BYTES) };
        let record = Self { owner_sum: owner_sum(content, claims), resumed: None, next: 0 };
        Found { record, held: None, patch: Some(patch) }
    }

    /// Adds that `held` has been written, and synced; where it is not synced it counts in this `boot` only.
    pub fn add(&mut self, Held { offset, hasher }: &Held, boot: Option<&str>) -> Patch {
        let slot = self.next;
        let following = |slot| (slot + 1) % STATES;
        self.next = following(slot);
        if Some(self.next) == self.resumed {
            self.next = following(self.next);
        }
        let (algorithm, state) = (hasher.algorithm().as_str(), hasher.state());
        let state = format!("{offset} {algorithm} {state} {}", boot.unwrap_or(LASTS));
        let line = format!("{state} {:08x}\n", seal(self.owner_sum, &state));
        Patch { at: (CLAIMS_BYTES + slot * STATE_BYTES) as u64, bytes: padded(&line, STATE_BYTES) }
    }
}

/// The state in a slot, where it is whole, of this file, and its content has lasted.
fn read_state(bytes: &[u8], slot: usize, owner_sum: u32, boot: Option<&str>) -> Option<Held> {
    let start = CLAIMS_BYTES + slot * STATE_BYTES;
    let line = whole_lines(bytes.get(start..(start + STATE_BYTES).min(bytes.len()))?).lines().next()?;
    let (state, sealed) = line.rsplit_once(' ')?;
    if u32::from_str_radix(sealed, 16) != Ok(seal(owner_sum, state)) {
        return None;
    }
    let mut words = state.split(' ');
    let offset = words.next()?.parse().ok()?;
    let algorithm = Algorithm::parse(words.next()?)?;
    let hasher = Hasher::restore(algorithm, words.next()?)?;
    let written_in = words.next()?;
    (written_in == LASTS || Some(written_in) == boot).then_some(Held { offset, hasher })
}

fn seal(owner_sum: u32, state: &str) -> u32 {
    crc32c::crc32c_append(owner_sum, state.as_bytes())
}

fn owner_sum(content: Content, claims: &str) -> u32 {
    let first = claims.split_inclusive('\n').next().unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c(&content.id.to_be_bytes()), first.as_bytes())
}

fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_owned();
    bytes.resize(length.max(bytes.len()), 0);
    bytes
}

/// As far as they are whole lines of text.
fn whole_lines(bytes: &[u8]) -> &str {
    let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let text = text.split('\0').next().unwrap_or_default();
    &text[..text.rfind('\n').map_or(0, |end| end + 1)]
}

fn known_digest(target: &Target) -> Option<Digest> {
    match target.promise? {
        Promise::Known(digest) => Some(digest),
        Promise::Trailer(_) => None,
    }
}

fn claim_for(target: &Target) -> String {
    let digest = known_digest(target).map_or("-".to_owned(), |digest| digest.to_string());
    format!("{} {digest} {}\n", target.size.unwrap_or(0), target.name)
}

/// Whether two claims are for the same file. A digest that one of them does not know yet is no difference.
fn agree(a: &str, b: &str) -> bool {
    let parts = |line: &str| -> Option<[String; 3]> {
        let parts: Vec<String> = line.strip_suffix('\n')?.splitn(3, ' ').map(Into::into).collect();
        parts.try_into().ok()
    };
    let (Some([size, digest, name]), Some([other_size, other_digest, other_name])) = (parts(a), parts(b)) else {
        return false;
    };
    let digests_agree = digest == other_digest || digest == "-" || other_digest == "-";
    size == other_size && name == other_name && digests_agree
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Name, NamePolicy, OnExists};

    const LATER: Promise = Promise::Trailer(Algorithm::Sha256);
    const DIGEST: Promise = Promise::Known(Digest::Sha256([7; 32]));
    const SIZE: u64 = u64::MAX;

    fn with_target<T>(name: &str, promise: Promise, act: impl FnOnce(&Target) -> T) -> T {
        let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
        act(&Target { size: Some(SIZE), promise: Some(promise), ..Target::new(&name, OnExists::Rename) })
    }

    fn find(bytes: &[u8], name: &str, promise: Promise, length: u64) -> Found {
        find_in(bytes, name, promise, length, None)
    }

    fn find_in(bytes: &[u8], name: &str, promise: Promise, length: u64, boot: Option<&str>) -> Found {
        with_target(name, promise, |target| Record::find(bytes, target, Content { id: 1, length }, boot))
    }

    fn apply(bytes: &mut Vec<u8>, patch: &Patch) {
        let (start, end) = (patch.at as usize, patch.at as usize + patch.bytes.len());
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(&patch.bytes);
        assert!(bytes.len() <= Record::MAX_BYTES);
    }

    /// Begins a record for an upload of this name.
    fn begin(name: &str, promise: Promise) -> (Vec<u8>, Record) {
        let (mut bytes, found) = (Vec::new(), find(&[], name, promise, 0));
        assert!(found.held.is_none());
        apply(&mut bytes, &found.patch.expect("it is new"));
        (bytes, found.record)
    }

    fn add(bytes: &mut Vec<u8>, record: &mut Record, offset: u64) {
        apply(bytes, &record.add(&Held { offset, hasher: hasher(offset) }, None));
    }

    /// In a state of its own for each offset.
    fn hasher(offset: u64) -> Hasher {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&offset.to_be_bytes());
        hasher
    }

    fn offset(bytes: &[u8], name: &str, length: u64) -> u64 {
        let held = find(bytes, name, LATER, length).held;
        held.map_or(0, |held| {
            assert_eq!(held.hasher.state(), hasher(held.offset).state());
            held.offset
        })
    }

    #[test]
    fn the_last_state_that_the_file_reaches_counts() {
        let (mut bytes, mut record) = begin("a", LATER);
        for so_far in 1..=10 {
            add(&mut bytes, &mut record, so_far * 100);
            assert_eq!(offset(&bytes, "a", SIZE), so_far * 100);
        }
        assert_eq!(offset(&bytes, "a", 1000), 1000);
        assert_eq!(offset(&bytes, "a", 999), 900);
        assert_eq!(offset(&bytes, "a", 700), 700);
        assert_eq!(offset(&bytes, "a", 699), 0, "there is room for so many");
        assert_eq!(offset(&bytes, "b", 1000), 0);
    }

    #[test]
    fn the_state_that_was_resumed_from_stays() {
        for resumed in [100, 200, 300, 400, 500] {
            let (mut bytes, mut record) = begin("a", LATER);
            (1..=resumed / 100).for_each(|so_far| add(&mut bytes, &mut record, so_far * 100));
            let mut record = find(&bytes, "a", LATER, resumed).record;
            for more in 1..10 {
                add(&mut bytes, &mut record, resumed + more);
                assert_eq!(offset(&bytes, "a", SIZE), resumed + more);
                assert_eq!(offset(&bytes, "a", resumed), resumed);
            }
        }
    }

    #[test]
    fn a_state_of_content_that_was_not_synced_counts_until_the_next_boot() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        apply(&mut bytes, &record.add(&Held { offset: 200, hasher: hasher(200) }, Some("boot-1")));
        let offset_in = |boot| find_in(&bytes, "a", LATER, SIZE, boot).held.map(|held| held.offset);
        assert_eq!(
            [offset_in(Some("boot-1")), offset_in(Some("boot-2")), offset_in(None)],
            [Some(200), Some(100), Some(100)]
        );
    }

    #[test]
    fn one_changed_byte_of_a_state_makes_it_none() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        add(&mut bytes, &mut record, 200);
        for (at, byte) in bytes.clone().into_iter().enumerate().skip(CLAIMS_BYTES + STATE_BYTES).take(STATE_BYTES) {
            if byte != 0 {
                bytes[at] = byte.wrapping_add(1);
                assert_eq!(offset(&bytes, "a", SIZE), 100, "{at}");
                bytes[at] = byte;
            }
        }
        assert_eq!(offset(&bytes, "a", SIZE), 200);
    }

    #[test]
    fn the_states_of_another_upload_are_not_taken_for_ones_of_this() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        let (other, _) = begin("b", LATER);
        // As if of the other's record only the claim had reached the disk.
        bytes[..CLAIMS_BYTES].copy_from_slice(&other[..CLAIMS_BYTES]);
        assert_eq!(offset(&bytes, "b", SIZE), 0);
    }

    #[test]
    fn the_states_of_an_earlier_file_are_not_taken_for_ones_of_this() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        let held_by = |id| {
            let content = Content { id, length: SIZE };
            with_target("a", LATER, |target| Record::find(&bytes, target, content, None)).held.is_some()
        };
        assert_eq!((held_by(1), held_by(2)), (true, false));
    }

    #[test]
    fn what_begins_anew_leaves_no_state() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        let patch = find(&bytes, "a", LATER, 99).patch.expect("nothing fits");
        apply(&mut bytes, &patch);
        assert_eq!(offset(&bytes, "a", SIZE), 0);
        assert!(bytes.starts_with(format!("{SIZE} - a\n").as_bytes()), "the claim stays");
    }

    #[test]
    fn a_digest_that_comes_to_be_known_leaves_what_was_known_before() {
        let name = "n".repeat(Name::MAX_BYTES);
        let (mut before, mut record) = begin(&name, LATER);
        add(&mut before, &mut record, 100);
        let patch = find(&before, &name, DIGEST, 100).patch.expect("it is new");
        let mut after = before.clone();
        apply(&mut after, &patch);
        let first = before.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!(after[..first], before[..first]);
        let other = Promise::Known(Digest::Sha256([8; 32]));
        for torn in first..CLAIMS_BYTES {
            let torn_bytes = [&after[..torn], &before[torn..]].concat();
            let is_known = find(&torn_bytes, &name, other, 100).held.is_none();
            assert_eq!(is_known, after[torn..CLAIMS_BYTES].iter().all(|byte| *byte == 0), "{torn}");
            assert_eq!(offset(&torn_bytes, &name, 100), 100, "{torn}");
            let mut again = torn_bytes.clone();
            find(&torn_bytes, &name, DIGEST, 100).patch.inspect(|patch| apply(&mut again, patch));
            assert!(again == after, "{torn}");
        }
        assert_eq!(find(&after, &name, DIGEST, 100).patch, None, "however often it is told");
        assert_eq!(find(&after, &name, LATER, 100).patch, None);
    }
}
