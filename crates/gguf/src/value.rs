//! Metadata values. Scalars and strings are copied out of the file; arrays stay there, found by
//! offsets.

use std::ops::Range;
use std::sync::Arc;

use crate::printable::printable;

/// Type of a metadata value, by the format's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    /// The type with this id.
    pub fn from_id(id: u32) -> Option<ValueType> {
        Self::ALL.get(id as usize).copied()
    }

    /// The id in a file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of a value; `None` for strings and arrays, which say it themselves.
    pub fn size_bytes(self) -> Option<usize> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            String | Array => None,
        }
    }

    /// Name for messages.
    pub fn name(self) -> &'static str {
        use ValueType::*;
        match self {
            U8 => "u8",
            I8 => "i8",
            U16 => "u16",
            I16 => "i16",
            U32 => "u32",
            I32 => "i32",
            F32 => "f32",
            Bool => "bool",
            String => "string",
            Array => "array",
            U64 => "u64",
            I64 => "i64",
            F64 => "f64",
        }
    }
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// Its type.
    pub fn ty(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The number, for any integer type.
    pub fn as_int(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// Type and, where it is short, value: for messages.
    pub(crate) fn describe(&self) -> String {
        let value = match self {
            Value::Array(a) => return format!("an array of {} {}", a.len(), a.item().name()),
            Value::String(s) => return format!("the string \"{}\"", printable(s)),
            Value::F32(v) => format!("{v:?}"), // with an exponent where digits would fill lines
            Value::F64(v) => format!("{v:?}"),
            Value::Bool(v) => v.to_string(),
            integer => integer.as_int().unwrap_or_default().to_string(),
        };
        format!("{value} of type {}", self.ty().name())
    }
}

/// An array in the file: what its elements are and which bytes they take.
// Boxed, so that a pair of the metadata stays small: see the bound on memory of `Gguf`.
#[derive(Clone, Debug, PartialEq)]
pub struct Array(Box<Extent>);

#[derive(Clone, Debug, PartialEq)]
struct Extent {
    item: ValueType,
    len: usize,
    bytes: Range<usize>,
    starts: Option<Arc<[u32]>>, // strings only: where each length field is, from bytes.start
}

impl Array {
    pub(crate) fn of_numbers(item: ValueType, bytes: Range<usize>, len: usize) -> Array {
        Array(Box::new(Extent { item, len, bytes, starts: None }))
    }

    pub(crate) fn of_strings(bytes: Range<usize>, starts: Arc<[u32]>) -> Array {
        Array(Box::new(Extent { item: ValueType::String, len: starts.len(), bytes, starts: Some(starts) }))
    }

    /// Type of the elements.
    pub fn item(&self) -> ValueType {
        self.0.item
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The bytes of the file that the elements take.
    pub fn byte_range(&self) -> Range<usize> {
        self.0.bytes.clone()
    }

    /// The elements as strings, if they are.
    pub fn strings(&self) -> Option<StrArray> {
        let starts = Arc::clone(self.0.starts.as_ref()?);
        Some(StrArray { base: self.0.bytes.start, end: self.0.bytes.end, starts })
    }

    /// The elements as numbers of type `T`, if they are.
    pub fn numbers<T: Number>(&self) -> Option<NumArray<T>> {
        let array = NumArray { start: self.0.bytes.start, len: self.0.len, item: std::marker::PhantomData };
        T::TYPES.contains(&self.0.item).then_some(array)
    }
}

/// Strings of a file, read on demand. Every read checks its bounds anew: a mapped file may change.
#[derive(Clone, Debug)]
pub struct StrArray {
    base: usize,
    end: usize,
    starts: Arc<[u32]>,
}

impl StrArray {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The bytes of string `i`, out of the header that the file was parsed from.
    pub fn get<'b>(&self, header: &'b [u8], i: usize) -> Option<&'b [u8]> {
        let start = self.base + *self.starts.get(i)? as usize;
        // The next string's length field follows directly, so the end needs no read of this one's.
        let end = self.starts.get(i + 1).map_or(self.end, |s| self.base + *s as usize);
        header.get(start + 8..end)
    }

    /// All strings in order; a string that is no longer there comes as an empty one.
    pub fn iter<'b>(&self, header: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        (0..self.len()).map(move |i| self.get(header, i).unwrap_or_default())
    }
}

/// Numbers that arrays hold.
pub trait Number: Copy {
    /// Types in the file that are this number's bits.
    const TYPES: &'static [ValueType];
    /// Bytes of one.
    const SIZE: usize;
    /// From `SIZE` little-endian bytes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! number {
    ($t:ty, $($ty:ident)|+) => {
        impl Number for $t {
            const TYPES: &'static [ValueType] = &[$(ValueType::$ty),+];
            const SIZE: usize = size_of::<$t>();
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(<$t>::from_le_bytes(bytes.try_into().ok()?))
            }
        }
    };
}

number!(f32, F32);
number!(i32, I32 | U32);
number!(u32, U32 | I32);
number!(u8, U8 | I8);

impl Number for bool {
    const TYPES: &'static [ValueType] = &[ValueType::Bool];
    const SIZE: usize = 1;
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(*bytes.first()? != 0)
    }
}

/// Numbers of a file, read on demand.
#[derive(Clone, Debug)]
pub struct NumArray<T> {
    start: usize,
    len: usize,
    item: std::marker::PhantomData<T>,
}

impl<T: Number> NumArray<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element `i`, out of the header that the file was parsed from.
    pub fn get(&self, header: &[u8], i: usize) -> Option<T> {
        let start = self.start + i.checked_mul(T::SIZE)?;
        if i < self.len { T::read(header.get(start..start + T::SIZE)?) } else { None }
    }

    /// All elements; fewer where the header is not the one that was parsed.
    pub fn to_vec(&self, header: &[u8]) -> Vec<T> {
        let bytes = header.get(self.start..self.start + self.len * T::SIZE).unwrap_or_default();
        bytes.chunks_exact(T::SIZE).filter_map(T::read).collect()
    }
}
