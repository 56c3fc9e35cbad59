//! Tests of `redact`.

use proptest::prelude::*;

use base64::engine::general_purpose::URL_SAFE;
use percent_encoding::utf8_percent_encode;

use super::*;

const KEY: &str = "sk_live-51.Hx/92+aQ~zz==";

#[test]
fn every_form_of_a_key_is_taken_out() {
    let redactor = Redactor::new([KEY]);
    let percent = utf8_percent_encode(KEY, NON_ALPHANUMERIC).to_string();
    for (text, safe) in [
        (format!("bad key {KEY}!"), "bad key [REDACTED]!"),
        (format!("Bearer {KEY}"), "Bearer [REDACTED]"),
        (KEY.to_uppercase(), "[REDACTED]"),
        (percent.clone(), "[REDACTED]"),
        (percent.to_lowercase(), "[REDACTED]"),
        (format!("{}…", &KEY[..9]), "[REDACTED]…"),
        (format!("…{}", &KEY[11..]), "…[REDACTED]"),
        (format!("{KEY}{KEY}"), "[REDACTED]"),
    ] {
        assert_eq!(redactor.redact(&text), safe, "{text}");
    }
    for before in ["", "Bearer ", "x:", "user"] {
        for engine in [STANDARD, URL_SAFE] {
            let encoded = engine.encode(format!("{before}{KEY}"));
            let safe = redactor.redact(&encoded);
            assert!(safe.contains(REDACTED) && safe.len() < 30, "{before}: {encoded}: {safe}");
        }
    }
    assert_eq!(redactor.redact("nothing here, not even sk_live"), "nothing here, not even sk_live");
}

#[test]
fn a_short_key_is_taken_out_and_a_word_is_left() {
    assert_eq!(Redactor::new(["hunter2"]).redact("key Hunter2 is bad"), "key [REDACTED] is bad");
    assert_eq!(Redactor::new(["a", " "]).redact("a bad day"), "a bad day");
}

#[test]
fn headers_and_urls_are_known_by_their_secrets() {
    let mut redactor = Redactor::default();
    redactor.add_header("X-Data-Plane-Follow", "1");
    redactor.add_header("X-Team", "data");
    redactor.add_header("X-Api-Key", "abc123");
    redactor.add_header("Authorization", &format!("Basic {}", STANDARD.encode("user:correct horse")));
    let text = "1 data Basic true abc123 user:correct horse";
    assert_eq!(redactor.redact(text), "1 data Basic true [REDACTED] [REDACTED]");
    let url =
        "https://hooks.example.com/services/T0123456/longer%20token/ab12?sig=s3cr3tsig&x=1#frag-ment".parse();
    let mut redactor = Redactor::default();
    redactor.add_url(&url.unwrap());
    let text = "services at hooks.example.com: T0123456 longer token ab12 s3cr3tsig 1 frag-ment";
    let safe = "services at hooks.example.com: [REDACTED] [REDACTED] [REDACTED] [REDACTED] 1 [REDACTED]";
    assert_eq!(redactor.redact(text), safe);
    let url = "https://h.example/api/hook?wait=true&token=shh&format=correcthorse".parse().unwrap();
    let mut redactor = Redactor::default();
    redactor.add_url(&url);
    redactor.add_url(&"https://h.example/api/webhooks".parse().unwrap());
    let text = "the hook of the api: wait true, shh, shhh, correcthorse, webhooks";
    let safe = "the hook of the api: wait true, shh, shhh, [REDACTED], [REDACTED]";
    assert_eq!(redactor.redact(text), safe, "three characters are no secret");
}

#[test]
fn an_echoed_url_is_not_shown_however_it_is_cut_or_written() {
    let mut redactor = Redactor::default();
    redactor.add_url(&"https://h/services/T0AB/B1CD/s3cr3t%20t0ken-42".parse().unwrap());
    for (said, expected) in [
        ("no text", "no text"),
        ("POST /services/T0AB/B1CD/s3cr3t%20t0ken-42", "POST /services/[REDACTED]/[REDACTED]/[REDACTED]"),
        ("unknown token s3cr3t t0ken-42!", "unknown token [REDACTED]!"),
        (
            r"https:\/\/h\/services\/T0AB\/B1CD\/s3cr3t%20t0k",
            r"https:\/\/h\/services\/[REDACTED]\/[REDACTED]\/[REDACTED]",
        ),
        ("s3cr3t%20t0ken-42s3cr3t%20t0ken-42", "[REDACTED]"),
        ("é s3cr3t%2", "é [REDACTED]"),
    ] {
        assert_eq!(redactor.redact(said), expected, "{said}");
    }
    let slashes = Redactor::new(["abc/def/ghi/jkl"]);
    assert_eq!(slashes.redact(r#""abc\/def\/ghi\/jkl""#), r#""[REDACTED]""#);
}

#[test]
fn the_bytes_of_a_signing_secret_are_taken_out_in_every_form() {
    let bytes: Vec<u8> = (0..32_u8).map(|n| n.wrapping_mul(59).wrapping_add(40)).collect();
    let hex =
        |before: &str| bytes.iter().map(|byte| format!("{before}{byte:02x}")).collect::<Vec<_>>().concat();
    let repr: String = bytes.iter().map(|byte| std::ascii::escape_default(*byte).to_string()).collect();
    for encoded in [STANDARD.encode(&bytes), STANDARD_NO_PAD.encode(&bytes)] {
        let redactor = Redactor::new([format!("whsec_{encoded}").as_str()]);
        for shown in [
            hex(""),
            hex("").to_uppercase(),
            hex("%"),
            hex("\\x"),
            repr.clone(),
            percent_encode(&bytes, UNRESERVED).to_string(),
            encoded.clone(),
            URL_SAFE_NO_PAD.encode(&bytes),
            URL_SAFE.encode([b"key:", &bytes[..]].concat()),
            String::from_utf8_lossy(&bytes).into_owned(),
            bytes.iter().map(|byte| char::from(*byte)).collect(),
        ] {
            let safe = redactor.redact(&shown);
            let left: String = safe.split(REDACTED).filter(|part| part.len() >= WINDOW).collect();
            assert!(safe.contains(REDACTED) && left.is_empty(), "{shown}: {safe}");
        }
        assert_eq!(
            redactor.redact("\u{fffd}\u{fffd}\u{fffd}\u{fffd} is no text"),
            "\u{fffd}\u{fffd}\u{fffd}\u{fffd} is no text"
        );
    }
}

#[test]
fn json_stays_json() {
    let redactor = Redactor::new([KEY]);
    let escaped = KEY.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<Vec<_>>().concat();
    let json = format!(r#"{{"a":"x\"{KEY}","n":1.50,"b":["{escaped}"],"{KEY}":null}}"#);
    let safe = redactor.redact_json(&json);
    assert_eq!(safe, r#"{"a":"x\"[REDACTED]","n":1.50,"b":["[REDACTED]"],"[REDACTED]":null}"#);
    let other = r#"{"a":"\\","b":1e5}"#;
    assert!(matches!(redactor.redact_json(other), Cow::Borrowed(text) if text == other));
}

proptest! {
    /// In any surroundings, and for any part of it: no eight characters of a secret are left.
    #[test]
    fn nothing_of_a_secret_is_left(
        secret in "[!-~]{8,70}", from in 0usize..60, length in 8usize..70,
        before in "\\PC{0,12}", after in "\\PC{0,12}", form in 0usize..10, pad in 0usize..5,
    ) {
        let from = from.min(secret.len() - WINDOW);
        let part = &secret[from..(from + length).min(secret.len())];
        let shown = match form {
            0 => part.to_owned(),
            1 => utf8_percent_encode(part, NON_ALPHANUMERIC).to_string(),
            2 => STANDARD.encode(format!("{}{part}", &"Basic"[..pad])),
            3 => URL_SAFE_NO_PAD.encode(format!("{}{part}", &"Basic"[..pad])),
            4 => part.bytes().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat(),
            5 => utf8_percent_encode(part, UNRESERVED).to_string(),
            6 => utf8_percent_encode(part, UNRESERVED).to_string().replace('%', "%25"),
            7 => utf8_percent_encode(part, NON_ALPHANUMERIC).to_string().replace('%', "%25"),
            8 => crate::run::text::desktop_markup(part),
            _ => part.to_ascii_uppercase(),
        };
        let redactor = Redactor::new([secret.as_str()]);
        let safe = redactor.redact(&format!("{before}{shown}{after}")).into_owned();
        prop_assert!(safe.contains(REDACTED), "{safe}");
        let lower = safe.replace(REDACTED, "\n").to_lowercase();
        for window in secret.to_ascii_lowercase().as_bytes().windows(WINDOW) {
            prop_assert!(!lower.as_bytes().windows(WINDOW).any(|shown| shown == window), "{safe}");
        }
        let json = serde_json::json!([shown]).to_string();
        let safe = redactor.redact_json(&json).into_owned();
        prop_assert!(safe.contains(REDACTED) && serde_json::from_str::<serde_json::Value>(&safe).is_ok());
    }

    /// Text without a secret stays as it is.
    #[test]
    fn other_text_is_left(text in "\\PC{0,60}") {
        prop_assert_eq!(Redactor::new(["Zx9-Zx8-Zx7-Zx6"]).redact(&text), text.as_str());
    }
}
