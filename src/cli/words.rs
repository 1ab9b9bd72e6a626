//! Options that take one of a few words.

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Words that stand for values.
pub type Words<T> = [(&'static str, T)];

/// Takes one of `words`.
pub fn one_of<T: Copy + Send + Sync + 'static>(words: &'static Words<T>) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().map(|(word, _)| *word))
        .map(|typed| words.iter().find(|(word, _)| *word == typed).expect("clap takes no other").1)
}

/// The word that stands for `value`.
pub fn word_of<T: PartialEq>(words: &'static Words<T>, value: T) -> &'static str {
    words.iter().find(|(_, each)| *each == value).expect("every value has a word").0
}
