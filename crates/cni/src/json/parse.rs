//! Text to [`Value`], with repeated keys resolved as Go does.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// Parses one JSON document; white space may follow it, nothing else.
///
/// Of a repeated key the last value counts, at the place of that last one (so that [`get`](super::get) can tell which of `name` and
/// `Name` came last), and `null` never replaces an earlier value. Nesting deeper than 127 levels is an error: nothing in a
/// configuration is deep, and every later walk over the value may recurse safely.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Document>(bytes).map(|document| document.0)
}

struct Document(Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor).map(Self)
    }
}

/// So many keys are compared each with each in less time than each takes to be hashed.
const FEW: usize = 24;

fn has_repetition(entries: &[(String, Value)]) -> bool {
    entries
        .iter()
        .enumerate()
        .any(|(index, (key, _))| entries.iter().skip(index + 1).any(|(other, _)| other == key))
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // JSON text has no infinities and the parser refuses what overflows, so there is always a number.
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Document(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, Document(value))) = items.next_entry::<String, Document>()? {
            entries.push((key, value));
        }
        if entries.len() <= FEW && !has_repetition(&entries) {
            return Ok(Value::Object(entries.into_iter().collect()));
        }
        // From the end, so that the last of equal keys is met first.
        let mut reversed = Map::with_capacity(entries.len());
        for (key, value) in entries.into_iter().rev() {
            match reversed.entry(key) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(mut place) if place.get().is_null() => drop(place.insert(value)),
                Entry::Occupied(_) => {}
            }
        }
        Ok(Value::Object(reversed.into_iter().rev().collect()))
    }
}
