//! The examples of `docs/protocol.md`, each run as a connection to a new server.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::slice::Iter;

use crate::documents::root;
use crate::fixture::{PATIENCE, Server, connect};

/// The steps of each example, and the line that it begins at.
fn examples(page: &str) -> Vec<(usize, Vec<&str>)> {
    let mut lines = page.lines().enumerate();
    let mut examples = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line == "```vector" {
            let steps = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            examples.push((number + 1, steps.collect()));
        }
    }
    examples
}

/// The bytes that a step stands for.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b'0') => 0,
                other => panic!("{other:?} is no escape: {text}"),
            },
            byte => byte,
        });
    }
    bytes
}

/// Whether `said` is what the step says, where each `...` stands for any bytes.
fn is_as_told(said: &[u8], told: &str) -> bool {
    let mut parts = told.split("...").map(bytes);
    let first = parts.next().unwrap();
    let Some(mut rest) = said.strip_prefix(&first[..]) else { return false };
    for part in parts {
        let found = rest.windows(part.len()).position(|window| window == part);
        let Some(at) = found else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// Reads until the server has said all of it.
fn hear(stream: &mut TcpStream, told: &str) {
    let mut said = Vec::new();
    let mut byte = [0];
    while !is_as_told(&said, told) {
        let count = stream.read(&mut byte).unwrap_or_else(|error| panic!("{error}; so far {said:?}, not {told}"));
        assert_eq!(count, 1, "the server ended after {:?}, not {told}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
}

fn run(steps: Iter<&str>) {
    let server = Server::start(&[]);
    let mut stream = connect(server.tcp()).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for step in steps {
        match step.split_once(": ") {
            Some(("client", sent)) => stream.write_all(&bytes(sent)).unwrap(),
            Some(("server", told)) => hear(&mut stream, told),
            _ if *step == "client ends" => stream.shutdown(Shutdown::Write).unwrap(),
            _ if *step == "server ends" => assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the server says more"),
            _ => panic!("no step: {step}"),
        }
    }
}

#[test]
fn the_server_does_what_the_examples_of_the_protocol_say() {
    let page = fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let examples = examples(&page);
    assert!(examples.len() > 15, "{}", examples.len());
    for (line, steps) in &examples {
        println!("the example in line {line}");
        assert_eq!(steps.last(), Some(&"server ends"), "each example is whole");
        run(steps.iter());
    }
}
