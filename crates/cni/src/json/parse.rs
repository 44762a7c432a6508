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
        /// As many as the least table has room for.
        const FEW: usize = 7;
        let mut object = Map::with_capacity(FEW);
        while let Some((key, Document(value))) = items.next_entry::<String, Document>()? {
            match object.entry(key) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(place) => {
                    let mut rest = vec![(place.key().clone(), value)];
                    while let Some((key, Document(value))) = items.next_entry::<String, Document>()? {
                        rest.push((key, value));
                    }
                    return Ok(Value::Object(last_of_each(object.into_iter().chain(rest))));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

/// An object of these entries, some of which have the same key.
fn last_of_each(entries: impl DoubleEndedIterator<Item = (String, Value)>) -> Map<String, Value> {
    // From the end, so that the last of equal keys is met first.
    let mut reversed = Map::new();
    for (key, value) in entries.rev() {
        match reversed.entry(key) {
            Entry::Vacant(place) => drop(place.insert(value)),
            Entry::Occupied(mut place) if place.get().is_null() => drop(place.insert(value)),
            Entry::Occupied(_) => {}
        }
    }
    reversed.into_iter().rev().collect()
}
