//! JSON values of any type, so that a field of an unexpected type does not fail the whole answer.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::body::is_object;

/// A JSON value of any type; only strings and numbers are kept.
#[derive(Debug, Default)]
pub(super) enum Scalar<'a> {
    #[default]
    Missing,
    Text(Cow<'a, str>),
    Integer(i64),
    Number(f64),
    Other,
}

impl Scalar<'_> {
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn time(&self) -> Option<Timestamp> {
        self.text()?.parse().ok()
    }

    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "checked: a whole number within the range"
                )]
                Some(*number as i64)
            }
            Self::Text(text) => text.trim().parse().ok(),
            Self::Number(_) | Self::Other | Self::Missing => None,
        }
    }

    /// A count, never negative.
    pub(super) fn count(&self) -> Option<u64> {
        self.integer().and_then(|integer| u64::try_from(integer).ok())
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(integer) => Some(*integer as f64),
            Self::Number(number) => Some(*number).filter(|number| number.is_finite()),
            Self::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            Self::Other | Self::Missing => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(text.to_owned().into()))
            }
            fn visit_i64<E>(self, integer: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Integer(integer))
            }
            fn visit_u64<E>(self, integer: u64) -> Result<Self::Value, E> {
                Ok(i64::try_from(integer).map_or(Scalar::Other, Scalar::Integer))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// `runtime_params.number_of_samples`, whatever type `runtime_params` has.
#[derive(Default)]
pub(super) struct NumberOfSamples(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for NumberOfSamples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Params<'a> {
            #[serde(borrow, default)]
            number_of_samples: Scalar<'a>,
        }
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?;
        let object = Some(raw.get()).filter(|raw| is_object(raw.as_bytes()));
        let params: Option<Params<'_>> = object.and_then(|raw| serde_json::from_str(raw).ok());
        Ok(Self(params.and_then(|params| params.number_of_samples.count())))
    }
}

/// The length of a list, without its entries; `None` for anything else.
#[derive(Default)]
pub(super) struct Length(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?;
        let list: Option<Vec<IgnoredAny>> = serde_json::from_str(raw.get()).ok();
        Ok(Self(list.map(|list| list.len() as u64)))
    }
}
