//! The files of a run: the size, the name and the conduct of each, as functions of its number.

use super::conduct::{Conduct, Mix};
use super::pattern::{Pattern, Random};
use crate::proto::{Name, NamePolicy};

/// How sizes are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sizes {
    /// Uniform from the first to the second, in bytes; one size if they are equal.
    Range(u64, u64),
    /// Log-normal: many small files and a few very large ones, as on real disks.
    LogNormal {
        /// Half of the files are smaller, in bytes.
        median: u64,
        /// The standard deviation of the logarithm: with 1, two of three files are within a factor of e.
        sigma: f64,
    },
}

/// A log-normal size is at most this many deviations from the median. Without the limit, one in 30,000 would be farther away.
const SIGMAS_MAX: f64 = 4.0;

/// All files that a run could send.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The seed of names, sizes, contents and conducts.
    pub seed: u64,
    /// How sizes are drawn.
    pub sizes: Sizes,
    /// The shares of the clients that misbehave.
    pub mix: Mix,
}

/// One file of a workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct File {
    /// Its number, from 0.
    pub number: u64,
    /// The number in its name: its own, or with [`Conduct::DupName`] that of the file before it.
    pub named: u64,
    /// The whole size in bytes.
    pub size: u64,
    /// What its client does with the upload.
    pub conduct: Conduct,
    /// Whether the file before or after it has the same name.
    pub is_contested: bool,
}

/// The purposes of the seed's streams; see [`Random::new`].
const SIZE: u64 = 1;
const SIZE_ANGLE: u64 = 2;
const CONDUCT: u64 = 3;

impl Workload {
    /// File `number`.
    pub fn file(&self, number: u64) -> File {
        let size = self.size(number);
        let conduct = self.conduct(number);
        let named = (0..=number).rev().find(|each| self.conduct(*each) != Conduct::DupName).unwrap_or(0);
        let is_contested = [number, number + 1].iter().any(|each| self.conduct(*each) == Conduct::DupName);
        File { number, named, size, conduct, is_contested }
    }

    /// The bytes of file `number`.
    pub fn pattern(&self, number: u64) -> Pattern {
        Pattern::new(self.seed, number)
    }

    /// The name of file `number`: the same in every run with this seed, and different with any other.
    pub fn name(&self, number: u64) -> Name {
        let name = format!("{}{number:08}", self.name_prefix());
        Name::parse(name.as_bytes(), NamePolicy { portable: true }).expect("letters, digits and hyphens are a name")
    }

    /// The file number in `stored_name`, if it is a name of this workload, or one with the suffix that a receiver adds to a
    /// taken name (`NAME.1`).
    pub fn number_in(&self, stored_name: &str) -> Option<u64> {
        let rest = stored_name.strip_prefix(&self.name_prefix())?;
        let (number, copy) = rest.split_once('.').unwrap_or((rest, "1"));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (number.len() >= 8 && all_digits(number) && all_digits(copy)).then(|| number.parse().ok())?
    }

    fn name_prefix(&self) -> String {
        format!("load-{:x}-", self.seed)
    }

    /// The first file has no previous name to take, and an empty file has no middle.
    fn conduct(&self, number: u64) -> Conduct {
        match self.mix.pick(Random::new(self.seed, CONDUCT).unit(number)) {
            Conduct::DupName if number == 0 => Conduct::Honest,
            Conduct::Abort | Conduct::Reset if self.size(number) == 0 => Conduct::Honest,
            conduct => conduct,
        }
    }

    fn size(&self, number: u64) -> u64 {
        let unit = Random::new(self.seed, SIZE).unit(number);
        match self.sizes {
            Sizes::Range(least, most) => least + (unit * (most - least + 1) as f64) as u64,
            Sizes::LogNormal { median, sigma } => {
                // Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
                let angle = std::f64::consts::TAU * Random::new(self.seed, SIZE_ANGLE).unit(number);
                let deviate = (-2.0 * (1.0 - unit).ln()).sqrt() * angle.cos();
                (median as f64 * (sigma * deviate.clamp(-SIGMAS_MAX, SIGMAS_MAX)).exp()) as u64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(sizes: Sizes) -> Workload {
        Workload { seed: 0xfeed, sizes, mix: Mix::default() }
    }

    #[test]
    fn sizes_are_drawn_from_the_whole_range() {
        let workload = workload(Sizes::Range(3, 5));
        let mut counts = [0; 8];
        (0..3000).for_each(|number| counts[workload.file(number).size as usize] += 1);
        assert_eq!(counts.iter().sum::<i32>(), 3000);
        assert!(counts[3..=5].iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn log_normal_sizes_have_their_median_and_their_spread() {
        let workload = workload(Sizes::LogNormal { median: 65_536, sigma: 1.0 });
        let mut sizes: Vec<u64> = (0..10_001).map(|number| workload.file(number).size).collect();
        sizes.sort_unstable();
        assert!((62_000..69_000).contains(&sizes[5000]), "{}", sizes[5000]);
        // 15.9 % of all sizes are more than one deviation below the median.
        assert!((22_500..25_700).contains(&sizes[1587]), "{}", sizes[1587]);
        assert!(sizes[10_000] <= (65_536.0 * 4_f64.exp()) as u64);
    }

    #[test]
    fn a_duplicate_has_the_name_of_the_last_file_that_is_not_one() {
        let mix = Mix::new(vec![(Conduct::DupName, 0.5)]).unwrap();
        let workload = Workload { mix, ..workload(Sizes::Range(1, 1)) };
        let files: Vec<File> = (0..1000).map(|number| workload.file(number)).collect();
        assert_eq!(files[0].named, 0);
        for pair in files.windows(2) {
            let is_duplicate = pair[1].conduct == Conduct::DupName;
            assert_eq!(pair[1].named, if is_duplicate { pair[0].named } else { pair[1].number });
            assert_eq!(pair[0].is_contested, pair[0].conduct == Conduct::DupName || is_duplicate);
        }
        assert!((400..600).contains(&files.iter().filter(|file| file.named != file.number).count()));
    }

    #[test]
    fn names_read_back_with_and_without_the_number_of_a_copy() {
        let workload = workload(Sizes::Range(1, 1));
        assert_eq!(workload.name(12).as_str(), "load-feed-00000012");
        for (name, number) in [
            ("load-feed-00000012", Some(12)),
            ("load-feed-00000012.3", Some(12)),
            ("load-feed-123456789", Some(123_456_789)),
            ("load-feed-12", None),
            ("load-feed-00000012.", None),
            ("load-feed-00000012.x", None),
            ("load-feed-0000001x", None),
            ("load-fee-00000012", None),
            ("load-feed-", None),
            ("other", None),
        ] {
            assert_eq!(workload.number_in(name), number, "{name}");
        }
    }
}
