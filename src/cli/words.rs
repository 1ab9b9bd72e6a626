//! Options that take one of a few words.

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// The word of each value of an option.
pub type Words<T> = [(&'static str, T)];

/// A parser that accepts one of `words`.
pub fn one_of<T: Copy + Send + Sync + 'static>(words: &'static Words<T>) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().map(|(word, _)| *word))
        .map(|typed| words.iter().find(|(word, _)| *word == typed).expect("clap takes no other").1)
}

/// The word for `value`.
pub fn word_of<T: PartialEq>(words: &'static Words<T>, value: T) -> &'static str {
    words.iter().find(|(_, each)| *each == value).expect("every value has a word").0
}
