//! Deserializer for protobuf JSON: closes the gaps of `prost-reflect` against the specification.
//!
//! A deserializer of JSON goes in; one with the same values comes out, except that
//!
//! * an integer out of range is an error, and not the nearest integer in range,
//! * a number may stand in quotes in each of its forms, as in `"1e1"`,
//! * a key occurs once in an object. For a message, `free_memory` and `freeMemory` are one key.
//!
//! No field of the control interface is a float. So a number with a fraction or an exponent is an
//! integer, too, or an error.

use std::{collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

/// Above it, a float does not say which integer was written.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// Kinds of keys in the next object.
#[derive(Clone, Copy)]
enum Keys {
    /// Names of fields, each in two spellings.
    Fields,
    /// The author's own names.
    Own,
}

/// A value in protobuf JSON. See the module.
pub(super) struct ProtobufJson<D>(pub(super) D);

/// Something of the JSON: a visitor, a seed, or an access.
struct Checked<T> {
    inner: T,
    keys: Keys,
    seen: HashSet<String>,
}

impl<T> Checked<T> {
    fn new(inner: T, keys: Keys) -> Self {
        Self { inner, keys, seen: HashSet::new() }
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ProtobufJson<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Checked::new(visitor, Keys::Own))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Checked::new(visitor, Keys::Fields))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Checked::new(visitor, Keys::Own))
    }

    // A text stays a text, also one that could be a number.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_str(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_string(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Checked<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.inner.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.inner.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.inner.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        let integer = integer(value).map_err(E::custom)?;
        match u64::try_from(integer) {
            Ok(integer) => self.inner.visit_u64(integer),
            Err(_) => self.inner.visit_i64(integer),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        // JSON has no `+1` and no `inf`, which Rust would read.
        let is_number = value.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        if let Some(integer) = value.parse().ok().filter(|_| is_number) {
            return self.visit_u64(integer);
        }
        if let Some(integer) = value.parse().ok().filter(|_| is_number) {
            return self.visit_i64(integer);
        }
        match value.parse().ok().filter(|_| is_number) {
            Some(float) => self.visit_f64(float),
            None => self.inner.visit_str(value),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(ProtobufJson(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Checked::new(items, self.keys))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Checked::new(entries, self.keys))
    }
}

/// The integer that a number with a fraction or an exponent stands for.
fn integer(value: f64) -> Result<i64, &'static str> {
    if value.abs() > MOST_EXACT {
        return Err(
            "number out of range: a number above 9007199254740992 has to be an integer of 64 \
                    bits, without fraction and exponent",
        );
    }
    if value.fract() != 0.0 {
        return Err("expected integer value");
    }
    // Exact: it is whole, and within the bound.
    #[allow(clippy::cast_possible_truncation)]
    Ok(value as i64)
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Checked<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Checked::new(seed, self.keys))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Checked<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let Some(key) = self.inner.next_key::<String>()? else { return Ok(None) };
        let known = match self.keys {
            Keys::Fields => key.replace('_', "").to_lowercase(),
            Keys::Own => key.clone(),
        };
        if !self.seen.insert(known) {
            return Err(A::Error::custom(format!("duplicate key `{key}`")));
        }
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Checked::new(seed, self.keys))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Checked<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(ProtobufJson(value))
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::{DescriptorPool, Kind};

    #[test]
    fn no_field_of_the_control_interface_is_a_float() {
        let pool = DescriptorPool::decode(crate::pb::DESCRIPTORS).unwrap();
        let mut fields =
            pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
        assert!(fields.all(|field| !matches!(field.kind(), Kind::Double | Kind::Float)));
    }
}
