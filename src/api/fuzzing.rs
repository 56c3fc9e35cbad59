//! Entries for fuzzing (`fuzz/`): what reads the API's answers, with what must hold for any bytes.

use bytes::Bytes;

use super::list::{Element, Splitter};
use super::wire;

const ASKED: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

/// Reads `data` as the answer about a run. The JSON that is kept of it means the same run.
pub fn run(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    if let Ok((run, json)) = wire::read(&body, ASKED)
        && !json.is_empty()
    {
        let again = wire::read(&json, ASKED).ok();
        assert_eq!(again.map(|(run, _)| run), Some(run), "{}", String::from_utf8_lossy(&json));
    }
    let _ = wire::listed(data);
    let _ = wire::id_in(data);
}

/// What a list consists of: for each element whether it is whole, and its bytes; and the error at its end.
type Split = (Vec<(bool, Vec<u8>)>, Option<String>);

fn split<'c>(mut chunks: impl Iterator<Item = &'c [u8]>) -> Split {
    let mut splitter = Splitter::default();
    let mut elements = Vec::new();
    let mut take = |element: Element<'_>| {
        elements.push(match element {
            Element::Whole(json) => (true, json.to_vec()),
            Element::TooLong(head) => (false, head.to_vec()),
        });
    };
    let fed = chunks.try_for_each(|chunk| splitter.feed(chunk, &mut take));
    (elements, fed.and_then(|()| splitter.finish()).err().map(|error| error.to_string()))
}

/// Splits a list into its elements. The first two bytes say how the rest is cut into chunks, which changes nothing. A
/// list that is JSON has the elements that a JSON parser finds.
pub fn list(data: &[u8]) {
    let Some(([first, second], body)) = data.split_first_chunk() else { return };
    let whole = split(std::iter::once(body));
    let (a, b) = (usize::from(*first) % 17 + 1, usize::from(*second) % 5 + 1);
    assert_eq!(split(body.chunks(a)), whole);
    assert_eq!(split(body.chunks(b)), whole);
    if let Ok(parsed) = serde_json::from_slice::<Vec<&serde_json::value::RawValue>>(body) {
        let found: Vec<&[u8]> =
            whole.0.iter().filter(|(whole, _)| *whole).map(|(_, json)| json.trim_ascii()).collect();
        if whole.1.is_none() && whole.0.len() == found.len() {
            let parsed: Vec<&[u8]> = parsed.iter().map(|json| json.get().as_bytes()).collect();
            assert_eq!(found, parsed);
        }
    }
}
