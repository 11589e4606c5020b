//! Dealing an output to chunks: each chunk gets a mutable part that no other chunk can reach.

use std::{marker::PhantomData, ops::Range};

pub(crate) mod sealed {
    pub trait Sealed {}
}
use sealed::Sealed;

/// Something mutable that falls apart into one part per chunk of items.
///
/// | type | item `i` is | a chunk's part is |
/// |---|---|---|
/// | `()` | nothing | `()` |
/// | `&mut [T]` | element `i` | `&mut [T]` |
/// | [`Blocks`] | `data[i * block..][..block]` | `&mut [T]` |
/// | [`Rows`] | row `i` of every column | [`RowsPart`] |
/// | [`Tiles`](crate::Tiles) | tile `i` of a matrix | [`RowsPart`] of the tile's columns |
/// | [`Strips`](crate::Strips) | tile `i` of some columns of a matrix | [`RowsPart`] of the tile's columns |
/// | [`Groups`] | item `i / size` of another output | that output's part |
/// | [`Runs`] | items `i * len..` of another output | that output's part |
/// | tuples of up to four | the same item of each | a tuple of parts |
///
/// # Safety
/// Parts of disjoint ranges must not overlap, and a part must stay inside of what was borrowed.
/// Only this crate implements the trait.
pub unsafe trait Split: Sealed {
    /// What is left of the borrow while parts of it are out: pointers and lengths.
    #[doc(hidden)]
    type Raw: Send + Sync;

    /// The share of one chunk.
    type Part<'p>;

    /// Gives the borrow up for a raw form, after checking that `n_items` items are there.
    #[doc(hidden)]
    fn into_raw(self, n_items: usize) -> Self::Raw;

    /// # Safety
    /// `items` lies within the `n_items` given to `into_raw`; no other part that is alive shares an
    /// item with it; what `into_raw` consumed stays borrowed during `'p`.
    #[doc(hidden)]
    unsafe fn part<'p>(raw: &Self::Raw, items: Range<usize>) -> Self::Part<'p>;
}

/// A pointer that may travel to the thread that writes through it.
#[doc(hidden)]
pub struct RawSlice<T> {
    start: *mut T,
    /// Elements an item.
    block: usize,
}

// SAFETY: it is dereferenced only in `Split::part`, which hands each element to one thread; that
// needs `T: Send`.
unsafe impl<T: Send> Send for RawSlice<T> {}
// SAFETY: as above; sharing the pointer itself gives access to nothing.
unsafe impl<T: Send> Sync for RawSlice<T> {}

impl<T> RawSlice<T> {
    /// # Safety
    /// As for [`Split::part`].
    unsafe fn part<'p>(&self, items: Range<usize>) -> &'p mut [T] {
        // SAFETY: `into_raw` proved that n_items * block elements stand at `start`, and `items` is
        // within n_items. The caller keeps them borrowed and hands out no overlapping part.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(items.start * self.block), items.len() * self.block) }
    }
}

impl Sealed for () {}
// SAFETY: there is nothing to overlap.
unsafe impl Split for () {
    type Raw = ();
    type Part<'p> = ();

    fn into_raw(self, _n_items: usize) {}

    unsafe fn part<'p>(_raw: &(), _items: Range<usize>) -> Self::Part<'p> {}
}

impl<T> Sealed for &mut [T] {}
// SAFETY: a part is exactly the elements of its items.
unsafe impl<T: Send + 'static> Split for &mut [T] {
    type Raw = RawSlice<T>;
    type Part<'p> = &'p mut [T];

    fn into_raw(self, n_items: usize) -> RawSlice<T> {
        Blocks { data: self, block: 1 }.into_raw(n_items)
    }

    unsafe fn part<'p>(raw: &RawSlice<T>, items: Range<usize>) -> &'p mut [T] {
        // SAFETY: the caller's promise, passed on.
        unsafe { raw.part(items) }
    }
}

/// A slice of equal blocks, one an item: item `i` is `data[i * block..][..block]`.
#[derive(Debug)]
pub struct Blocks<'a, T> {
    /// Exactly `n_items * block` elements.
    pub data: &'a mut [T],
    /// Elements an item.
    pub block: usize,
}

impl<T> Sealed for Blocks<'_, T> {}
// SAFETY: a part is exactly the blocks of its items, and `into_raw` checks that all blocks lie
// within `data`.
unsafe impl<T: Send + 'static> Split for Blocks<'_, T> {
    type Raw = RawSlice<T>;
    type Part<'p> = &'p mut [T];

    fn into_raw(self, n_items: usize) -> RawSlice<T> {
        let (len, block) = (self.data.len(), self.block);
        let fits = n_items.checked_mul(block) == Some(len);
        assert!(fits, "an output of {len} elements was given for {n_items} items of {block}");
        RawSlice { start: self.data.as_mut_ptr(), block }
    }

    unsafe fn part<'p>(raw: &RawSlice<T>, items: Range<usize>) -> &'p mut [T] {
        // SAFETY: the caller's promise, passed on.
        unsafe { raw.part(items) }
    }
}

/// The rows of a column-major matrix: item `r` is `data[c * stride + r]` for every column `c`.
///
/// The product of a weight matrix with a batch of activations is written like this: a worker
/// computes some rows for all columns.
#[derive(Debug)]
pub struct Rows<'a, T = f32> {
    data: &'a mut [T],
    stride: usize,
    n_cols: usize,
}

impl<'a, T> Rows<'a, T> {
    /// `stride` is the distance between the starts of two columns, usually the number of rows. A
    /// loop may run over fewer rows than that: to write the rows from `r0` on, pass
    /// `&mut data[r0..]`. The last column may end early, after the loop's rows.
    pub fn new(data: &'a mut [T], stride: usize, n_cols: usize) -> Rows<'a, T> {
        Rows { data, stride, n_cols }
    }
}

/// Some rows of all columns of a [`Rows`], or of a tile's.
#[derive(Debug)]
pub struct RowsPart<'p, T = f32> {
    /// The first row of column 0.
    start: *mut T,
    stride: usize,
    n_rows: usize,
    n_cols: usize,
    _borrow: PhantomData<&'p mut [T]>,
}

// SAFETY: it is a set of `&mut [T]`, one a column.
unsafe impl<T: Send> Send for RowsPart<'_, T> {}

impl<T> RowsPart<'_, T> {
    /// Columns of this part.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Rows of this part.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// This part's rows of column `c`.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn column(&mut self, c: usize) -> &mut [T] {
        assert!(c < self.n_cols, "column {c} of {}", self.n_cols);
        // SAFETY: `Rows::into_raw` proved that every row of every column lies within the matrix;
        // the part owns its rows alone, and `&mut self` keeps a second column from being out at the
        // same time.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(c * self.stride), self.n_rows) }
    }
}

#[doc(hidden)]
pub struct RawRows<T> {
    start: *mut T,
    stride: usize,
    n_cols: usize,
}

// SAFETY: as for `RawSlice`.
unsafe impl<T: Send> Send for RawRows<T> {}
// SAFETY: as for `RawSlice`.
unsafe impl<T: Send> Sync for RawRows<T> {}

impl<T> RawRows<T> {
    /// Some rows of some columns.
    ///
    /// # Safety
    /// They lie within the rows and columns that `into_raw` checked; else as for [`Split::part`].
    pub(crate) unsafe fn tile<'p>(&self, rows: Range<usize>, cols: Range<usize>) -> RowsPart<'p, T> {
        // Without columns the slice may be empty: there is nothing to point at.
        let offset = if cols.is_empty() { 0 } else { cols.start * self.stride + rows.start };
        // SAFETY: the first column holds this element, or ends with it.
        let start = unsafe { self.start.add(offset) };
        RowsPart { start, stride: self.stride, n_rows: rows.len(), n_cols: cols.len(), _borrow: PhantomData }
    }
}

impl<T> Sealed for Rows<'_, T> {}
// SAFETY: rows r..s of column c are elements c*stride+r..c*stride+s. With all rows below `stride`
// these are disjoint for disjoint row ranges and different columns; `into_raw` checks that and that
// the last one lies within `data`.
unsafe impl<T: Send + 'static> Split for Rows<'_, T> {
    type Raw = RawRows<T>;
    type Part<'p> = RowsPart<'p, T>;

    fn into_raw(self, n_items: usize) -> RawRows<T> {
        let Rows { data, stride, n_cols } = self;
        assert!(n_items <= stride || n_cols <= 1, "{n_items} rows in columns that start every {stride} elements");
        let end = n_cols.saturating_sub(1).checked_mul(stride).and_then(|last| last.checked_add(n_items));
        let fits = n_cols == 0 || end.is_some_and(|end| end <= data.len());
        assert!(fits, "{} elements for {n_cols} columns of {n_items} rows, every {stride} elements", data.len());
        RawRows { start: data.as_mut_ptr(), stride, n_cols }
    }

    unsafe fn part<'p>(raw: &RawRows<T>, items: Range<usize>) -> RowsPart<'p, T> {
        // SAFETY: `items` lies within the rows that `into_raw` checked; the rest is the caller's
        // promise.
        unsafe { raw.tile(items, 0..raw.n_cols) }
    }
}

/// An output of one item for each `size` items of the loop, the last for those that are left: a sum
/// or a maximum of what a chunk computed, say.
///
/// No group may be shared by two chunks, so a loop's `grain` has to be a multiple of `size`.
///
/// # Panics
/// [`Pool::run`](crate::Pool::run) does if `size` is 0, or where a chunk starts inside of a group.
#[derive(Debug)]
pub struct Groups<S> {
    /// Items of the loop that share an item of `out`.
    pub size: usize,
    /// As many items as there are groups.
    pub out: S,
}

#[doc(hidden)]
pub struct RawGroups<R> {
    size: usize,
    out: R,
}

impl<S: Split> Sealed for Groups<S> {}
// SAFETY: a part has the groups from items.start / size up to items.end / size, rounded up. `part`
// sees to it that chunks start where a group does. Of two disjoint chunks the later one then starts
// with a group whose items all lie at or after the earlier one's end, so they share no group, and
// `out` keeps the contract for its items.
unsafe impl<S: Split> Split for Groups<S> {
    type Raw = RawGroups<S::Raw>;
    type Part<'p> = S::Part<'p>;

    fn into_raw(self, n_items: usize) -> Self::Raw {
        assert!(self.size > 0, "groups of 0 items");
        RawGroups { size: self.size, out: self.out.into_raw(n_items.div_ceil(self.size)) }
    }

    unsafe fn part<'p>(raw: &Self::Raw, items: Range<usize>) -> Self::Part<'p> {
        let size = raw.size;
        assert!(items.start.is_multiple_of(size), "a chunk starts at item {}, within a group of {size}", items.start);
        // SAFETY: `items` ends within `n_items`, so the groups end within the n_items / size,
        // rounded up, that `out` was checked for; no other part has one of them (see above); the
        // borrow is the caller's promise, passed on.
        unsafe { S::part(&raw.out, items.start / size..items.end.div_ceil(size)) }
    }
}

/// An output of `len` items for each item of the loop.
#[derive(Debug)]
pub struct Runs<S> {
    /// Items of `out` that an item of the loop has.
    pub len: usize,
    /// `len` times as many items as the loop has.
    pub out: S,
}

#[doc(hidden)]
pub struct RawRuns<R> {
    len: usize,
    out: R,
}

impl<S: Split> Sealed for Runs<S> {}
// SAFETY: runs of disjoint items are disjoint, and `into_raw` checks that the last one lies within
// `out`, which keeps the contract for its items.
unsafe impl<S: Split> Split for Runs<S> {
    type Raw = RawRuns<S::Raw>;
    type Part<'p> = S::Part<'p>;

    fn into_raw(self, n_items: usize) -> Self::Raw {
        let n = n_items.checked_mul(self.len);
        let n = n.unwrap_or_else(|| panic!("{n_items} runs of {} items overflow", self.len));
        RawRuns { len: self.len, out: self.out.into_raw(n) }
    }

    unsafe fn part<'p>(raw: &Self::Raw, items: Range<usize>) -> Self::Part<'p> {
        // SAFETY: `items` ends within `n_items`, so the run ends within what `out` was checked for;
        // the rest is the caller's promise, passed on.
        unsafe { S::part(&raw.out, items.start * raw.len..items.end * raw.len) }
    }
}

macro_rules! split_tuple {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Split),+> Sealed for ($($name,)+) {}
        // SAFETY: each member keeps the contract for its own output, and the members are different
        // borrows.
        unsafe impl<$($name: Split),+> Split for ($($name,)+) {
            type Raw = ($($name::Raw,)+);
            type Part<'p> = ($($name::Part<'p>,)+);

            fn into_raw(self, n_items: usize) -> Self::Raw {
                ($(self.$index.into_raw(n_items),)+)
            }

            unsafe fn part<'p>(raw: &Self::Raw, items: Range<usize>) -> Self::Part<'p> {
                // SAFETY: the caller's promise holds for each member.
                unsafe { ($($name::part(&raw.$index, items.clone()),)+) }
            }
        }
    };
}
split_tuple!(A 0, B 1);
split_tuple!(A 0, B 1, C 2);
split_tuple!(A 0, B 1, C 2, D 3);
