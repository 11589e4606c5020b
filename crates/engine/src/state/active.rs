//! The sequences of a chunk while it is computed.

use std::ops::Range;
use std::sync::Arc;

use modelembed_pool::Pool;

use super::layout::{Layout, PAGE_TOKENS};
use super::pages::{Page, Tables};
use super::records::{Before, CHUNK, RecordLayout, Rows, crosses};

/// Rows of some sequences that are computed together.
pub(crate) struct Active {
    pub(crate) runs: Vec<ActiveRun>,
    /// Pages that rows of the chunk are stored in, of each group of layers: taken out of the
    /// tables, so that workers can write to each by itself.
    writes: Vec<Vec<Write>>,
    /// Rows of all runs.
    pub(crate) n: usize,
}

/// Rows of one sequence.
pub(crate) struct ActiveRun {
    /// Which of the sequences of the batch.
    pub(crate) index: usize,
    /// Its columns of the chunk.
    pub(crate) cols: Range<usize>,
    /// Position of the first one.
    pub(crate) pos: usize,
    /// Which of the sequence's tokens of the batch the first one is.
    pub(crate) offset: usize,
    pub(crate) tables: Tables,
}

/// A page with rows to be stored.
pub(crate) struct Write {
    page: Arc<Page>,
    /// Columns of the chunk that go to it.
    pub(crate) cols: Range<usize>,
    /// Its position of the first of them.
    pub(crate) row: usize,
}

impl Write {
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let page = Arc::get_mut(&mut self.page);
        page.unwrap_or_else(|| unreachable!("a page was made ready for writing")).bytes_mut()
    }
}

impl ActiveRun {
    /// Position of a column of the chunk.
    pub(crate) fn position(&self, col: usize) -> usize {
        self.pos + col - self.cols.start
    }
}

impl Active {
    pub(crate) fn new(layout: &Layout) -> Active {
        Active { runs: Vec::new(), writes: layout.groups().iter().map(|_| Vec::new()).collect(), n: 0 }
    }

    /// Adds the next rows of a sequence, whose pages were prepared for them.
    pub(crate) fn add(&mut self, index: usize, mut tables: Tables, pos: usize, offset: usize, n: usize) {
        let cols = self.n..self.n + n;
        for (group, writes) in self.writes.iter_mut().enumerate() {
            let table = tables.of_mut(group);
            table.first_write = writes.len();
            let mut at = pos;
            for page in table.pages.drain(pos / PAGE_TOKENS - table.first..) {
                let end = (pos + n).min((at / PAGE_TOKENS + 1) * PAGE_TOKENS).max(at);
                let cols = cols.start + at - pos..cols.start + end - pos;
                writes.push(Write { page, cols, row: at % PAGE_TOKENS });
                at = end;
            }
        }
        self.n += n;
        self.runs.push(ActiveRun { index, cols, pos, offset, tables });
    }

    /// Gives the tables back, whole again, to the sequences by their index in the batch.
    pub(crate) fn end(&mut self, mut put: impl FnMut(usize, Tables)) {
        while let Some(mut run) = self.runs.pop() {
            run.tables.records.computed(run.pos, run.cols.len());
            for (group, writes) in self.writes.iter_mut().enumerate() {
                let table = run.tables.of_mut(group);
                table.pages.extend(writes.drain(table.first_write..).map(|write| write.page));
            }
            put(run.index, run.tables);
        }
        self.n = 0;
    }

    /// The run that a column of the chunk is of.
    pub(crate) fn run_of(&self, col: usize) -> &ActiveRun {
        &self.runs[self.runs.partition_point(|run| run.cols.end <= col)]
    }

    /// Stores the rows of all runs' columns in their records; `rows` has those of some columns.
    pub(crate) fn store<'r>(
        &mut self,
        layout: &RecordLayout,
        record: usize,
        pool: &Pool,
        rows: &(dyn Fn(Range<usize>) -> Rows<'r> + Sync),
    ) {
        pool.run(self.runs.len(), 1, &mut self.runs[..], |_, runs, _| {
            for run in runs {
                let (rows, pos) = (rows(run.cols.clone()), run.pos);
                let records = &mut run.tables.records;
                if !crosses(pos, rows.n) {
                    layout.store(record, records.appended_mut(), Before::Same, pos, &rows);
                    continue;
                }
                let (other, spare) = records.crossing();
                let before = other.as_deref().map_or(Before::Earlier, Before::Other);
                layout.store(record, spare, before, pos, &rows);
                if let Some(other) = other {
                    let rows = Rows { n: CHUNK - 1 - pos % CHUNK, ..rows };
                    layout.store(record, other, Before::Same, pos, &rows);
                }
            }
        });
    }

    /// The pages of a group with rows to be stored.
    pub(crate) fn writes_mut(&mut self, group: usize) -> &mut [Write] {
        &mut self.writes[group]
    }

    /// The bytes of a page of a run.
    pub(crate) fn page<'a>(&'a self, run: &'a ActiveRun, group: usize, number: usize) -> &'a [u8] {
        let table = run.tables.of(group);
        let i = number - table.first;
        match table.pages.get(i) {
            Some(page) => page.bytes(),
            None => self.writes[group][table.first_write + i - table.pages.len()].page.bytes(),
        }
    }
}
