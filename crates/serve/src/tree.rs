//! What was computed, by the tokens that it was computed from.
//!
//! A node is a page and its tokens; its ancestors are the pages before. Only a leaf may be full in
//! part. Tokens are compared, all of them. A tree is of one engine, and so of one model; each salt
//! has a root of its own.

use std::collections::HashMap;
use std::sync::Arc;

use modelembed::{SealedPage, TokenId};

const PAGE_TOKENS: usize = SealedPage::TOKENS;
/// Positions between which a recurrence's state does not change: a state at `n` tokens serves for
/// going on from the multiple of this before, too.
pub(crate) const STATE_TOKENS: usize = 64;
/// A page of fewer tokens is not worth its memory where it can be computed again from the page
/// before.
const FEWEST_TOKENS: usize = 16;

/// Pages of prefixes.
pub(crate) struct Tree<P> {
    nodes: Vec<Option<Node<P>>>,
    vacant: Vec<usize>,
    roots: HashMap<Option<Arc<str>>, Vec<usize>>,
    n_nodes: usize,
    clock: u64,
    /// Whether one can go on only where a state was kept, and how many pages a state is as large as.
    has_states: bool,
    state_pages: usize,
}

struct Node<P> {
    tokens: Box<[TokenId]>,
    page: P,
    /// Whether a state stands behind it.
    has_state: bool,
    parent: Parent,
    children: Vec<usize>,
    last_used: u64,
    /// The tree's own end of all guards.
    guard: Arc<()>,
}

#[derive(Clone)]
enum Parent {
    Node(usize),
    Root(Option<Arc<str>>),
}

/// Keeps a node and what it stands on in the tree.
#[derive(Clone, Debug)]
pub(crate) struct Guard(#[allow(dead_code, reason = "it is counted")] Arc<()>);

/// The longest prefix that is there.
pub(crate) struct Found<P> {
    /// Its tokens.
    pub(crate) n_tokens: usize,
    /// Its pages, the last of which may hold more.
    pub(crate) pages: Vec<P>,
    /// Keeps the last page.
    pub(crate) guard: Option<Guard>,
}

impl<P: Clone> Tree<P> {
    /// An empty one, of a model without recurrences, or with states that are as large as so many
    /// pages.
    pub(crate) fn new(state_pages: Option<usize>) -> Tree<P> {
        Tree {
            nodes: Vec::new(),
            vacant: Vec::new(),
            roots: HashMap::new(),
            n_nodes: 0,
            clock: 0,
            has_states: state_pages.is_some(),
            state_pages: state_pages.unwrap_or(0),
        }
    }

    /// Pages that it holds.
    pub(crate) fn n_pages(&self) -> usize {
        self.n_nodes
    }

    /// The longest prefix of `tokens` that is there and that one can go on behind.
    pub(crate) fn find(&mut self, salt: &Option<Arc<str>>, tokens: &[TokenId]) -> Found<P> {
        self.clock += 1;
        // Whole pages, one after the other, and the best end so far: its tokens, how many of these
        // pages they take, and the page that they end in.
        let (mut whole, mut best) = (Vec::new(), (0, 0, None));
        let mut level = self.roots.get(salt).map_or(&[][..], Vec::as_slice);
        loop {
            let start = whole.len() * PAGE_TOKENS;
            let rest = &tokens[start..];
            let ends = level.iter().map(|&node| (self.n_usable(node, rest, start), node));
            if let Some((n_usable, node)) = ends.max().filter(|&(n_usable, _)| n_usable > 0) {
                best = (start + n_usable, whole.len(), Some(node));
            }
            let is_whole = |node: &&usize| {
                let node = self.node(**node);
                node.tokens.len() == PAGE_TOKENS && rest.starts_with(&node.tokens)
            };
            let Some(&next) = level.iter().find(is_whole) else { break };
            whole.push(next);
            level = &self.node(next).children;
        }
        let (n_tokens, n_whole, last) = best;
        whole.truncate(n_whole);
        let path: Vec<usize> = whole.into_iter().chain(last).collect();
        for &node in &path {
            self.touch(node);
        }
        let guard = path.last().map(|&node| self.guard(node));
        Found { n_tokens, pages: path.iter().map(|&node| self.node(node).page.clone()).collect(), guard }
    }

    /// How many of the tokens that a node, which begins at `start`, has in common with `rest` one
    /// can go on behind.
    fn n_usable(&self, node: usize, rest: &[TokenId], start: usize) -> usize {
        let node = self.node(node);
        let n_common = node.tokens.iter().zip(rest).take_while(|(a, b)| a == b).count();
        let end = start + node.tokens.len();
        let is_usable = !self.has_states || node.has_state && start + n_common >= end - end % STATE_TOKENS;
        if is_usable { n_common } else { 0 }
    }

    /// Takes in pages of `tokens` from the first one on, each with whether a state stands behind
    /// it. Those that are there stay. Returns what keeps the last one that is now there.
    pub(crate) fn insert(&mut self, salt: &Option<Arc<str>>, tokens: &[TokenId], pages: &[(P, bool)]) -> Option<Guard> {
        self.clock += 1;
        let mut parent = Parent::Root(salt.clone());
        let mut last = None;
        for (tokens, (page, has_state)) in tokens.chunks(PAGE_TOKENS).zip(pages) {
            let Some(node) = self.child(&parent, tokens, page, *has_state) else { break };
            self.touch(node);
            last = Some(node);
            if self.node(node).tokens.len() < PAGE_TOKENS || tokens.len() < PAGE_TOKENS {
                break;
            }
            parent = Parent::Node(node);
        }
        last.map(|node| self.guard(node))
    }

    /// The child of these tokens, which is made if need be; `None` where it is not worth it.
    fn child(&mut self, parent: &Parent, tokens: &[TokenId], page: &P, has_state: bool) -> Option<usize> {
        let siblings = self.children(parent).to_vec();
        if let Some(&same) = siblings.iter().find(|&&node| *self.node(node).tokens == *tokens) {
            // A state that came later is as good as one that came with it.
            if has_state && !self.node(same).has_state {
                let node = self.node_mut(same);
                (node.page, node.has_state) = (page.clone(), true);
            }
            return Some(same);
        }
        let is_whole = tokens.len() == PAGE_TOKENS;
        if !is_whole && !self.has_states {
            if let Some(&longer) = siblings.iter().find(|&&node| self.node(node).tokens.starts_with(tokens)) {
                return Some(longer);
            }
            if tokens.len() < FEWEST_TOKENS {
                return None;
            }
        }
        if !is_whole && self.has_states && !has_state {
            return None;
        }
        if !self.has_states {
            // What is a beginning of this serves nobody any more.
            for &node in &siblings {
                let shorter = self.node(node);
                if tokens.starts_with(&shorter.tokens) && !shorter.is_guarded() {
                    self.remove(node);
                }
            }
        }
        let node = Node {
            tokens: tokens.into(),
            page: page.clone(),
            has_state,
            parent: parent.clone(),
            children: Vec::new(),
            last_used: self.clock,
            guard: Arc::new(()),
        };
        let id = match self.vacant.pop() {
            Some(id) => {
                self.nodes[id] = Some(node);
                id
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() - 1
            }
        };
        self.n_nodes += 1;
        match parent {
            Parent::Node(parent) => self.node_mut(*parent).children.push(id),
            Parent::Root(salt) => self.roots.entry(salt.clone()).or_default().push(id),
        }
        Some(id)
    }

    /// Lets the leaf go that was not used for longest; false if none may.
    pub(crate) fn evict(&mut self) -> bool {
        let leaves = self.nodes.iter().enumerate().filter_map(|(id, node)| Some((id, node.as_ref()?)));
        let free = leaves.filter(|(_, node)| node.children.is_empty() && !node.is_guarded());
        let oldest = free.min_by_key(|(_, node)| node.last_used).map(|(id, _)| id);
        oldest.inspect(|&id| self.remove(id)).is_some()
    }

    /// Pages that could leave one after the other, and what goes with them in states.
    pub(crate) fn n_evictable(&self) -> usize {
        // A guarded node keeps its ancestors.
        let mut is_kept = vec![false; self.nodes.len()];
        for (id, node) in self.nodes.iter().enumerate() {
            let mut next = node.as_ref().filter(|node| node.is_guarded()).map(|_| id);
            while let Some(id) = next.filter(|&id| !is_kept[id]) {
                is_kept[id] = true;
                next = match self.node(id).parent {
                    Parent::Node(parent) => Some(parent),
                    Parent::Root(_) => None,
                };
            }
        }
        let left = self.nodes.iter().zip(is_kept).filter_map(|(node, kept)| node.as_ref().filter(|_| !kept));
        left.map(|node| if node.has_state { 1 + self.state_pages } else { 1 }).sum()
    }

    /// Lets everything go that nobody guards. Returns how many pages that were.
    pub(crate) fn clear(&mut self) -> usize {
        let before = self.n_nodes;
        while self.evict() {}
        before - self.n_nodes
    }

    fn children(&self, parent: &Parent) -> &[usize] {
        match parent {
            Parent::Node(parent) => &self.node(*parent).children,
            Parent::Root(salt) => self.roots.get(salt).map_or(&[], Vec::as_slice),
        }
    }

    /// Takes a leaf out.
    fn remove(&mut self, id: usize) {
        let Some(node) = self.nodes[id].take() else { return };
        self.vacant.push(id);
        self.n_nodes -= 1;
        match node.parent {
            Parent::Node(parent) => self.node_mut(parent).children.retain(|&child| child != id),
            Parent::Root(salt) => {
                if let Some(level) = self.roots.get_mut(&salt) {
                    level.retain(|&child| child != id);
                    if level.is_empty() {
                        self.roots.remove(&salt);
                    }
                }
            }
        }
    }

    fn touch(&mut self, id: usize) {
        let clock = self.clock;
        self.node_mut(id).last_used = clock;
    }

    fn guard(&self, id: usize) -> Guard {
        Guard(Arc::clone(&self.node(id).guard))
    }

    fn node(&self, id: usize) -> &Node<P> {
        self.nodes[id].as_ref().unwrap_or_else(|| unreachable!("node {id} is in the tree"))
    }

    fn node_mut(&mut self, id: usize) -> &mut Node<P> {
        self.nodes[id].as_mut().unwrap_or_else(|| unreachable!("node {id} is in the tree"))
    }
}

impl<P> Node<P> {
    fn is_guarded(&self) -> bool {
        Arc::strong_count(&self.guard) > 1
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use modelembed_testkit::Rng;

    use super::*;

    fn ids(range: Range<u32>) -> Vec<TokenId> {
        range.map(TokenId).collect()
    }

    /// Takes in a text, its pages named by a number and their place.
    fn insert(tree: &mut Tree<(u32, usize)>, name: u32, tokens: &[TokenId], states: &[bool]) -> Option<Guard> {
        let n = tokens.len().div_ceil(PAGE_TOKENS);
        let state = |i: usize| states.get(i).copied().unwrap_or(false);
        let pages: Vec<_> = (0..n).map(|i| ((name, i), state(i))).collect();
        tree.insert(&None, tokens, &pages)
    }

    #[test]
    fn the_longest_prefix_is_found_up_to_its_last_token() {
        let mut tree = Tree::new(None);
        let first = ids(0..700);
        insert(&mut tree, 1, &first, &[]);
        assert_eq!(tree.n_pages(), 3);
        // It leaves the first text within the second page.
        let second = [&first[..400], &ids(5000..5300)].concat();
        insert(&mut tree, 2, &second, &[]);
        assert_eq!(tree.n_pages(), 5, "the first page is shared");
        for (tokens, n_tokens, pages) in [
            (&first[..], 700, &[(1, 0), (1, 1), (1, 2)][..]),
            (&first[..690], 690, &[(1, 0), (1, 1), (1, 2)]),
            (&first[..512], 512, &[(1, 0), (1, 1)]),
            (&second, 700, &[(1, 0), (2, 1), (2, 2)]),
            (&first[..1], 1, &[(1, 0)]),
            (&ids(1..50), 0, &[]),
            (&[], 0, &[]),
        ] {
            let found = tree.find(&None, tokens);
            assert_eq!((found.n_tokens, &found.pages[..]), (n_tokens, pages));
        }
        let found = tree.find(&None, &[&first[..], &ids(0..9)].concat());
        assert_eq!(found.n_tokens, 700);
        // Equal but for one token, wherever it is.
        for at in [0, 255, 256, 300, 699] {
            let mut other = first.clone();
            other[at] = TokenId(9999);
            assert_eq!(tree.find(&None, &other).n_tokens, at);
        }
    }

    #[test]
    fn salts_do_not_see_each_other() {
        let mut tree = Tree::new(None);
        let (a, b) = (Some(Arc::from("a")), Some(Arc::from("b")));
        let tokens = ids(0..300);
        tree.insert(&a, &tokens, &[(1, false), (2, false)]);
        assert_eq!(tree.find(&a, &tokens).n_tokens, 300);
        assert_eq!((tree.find(&b, &tokens).n_tokens, tree.find(&None, &tokens).n_tokens), (0, 0));
        tree.insert(&b, &tokens, &[(3, false), (4, false)]);
        assert_eq!(tree.find(&b, &tokens).pages, [3, 4]);
        assert_eq!(tree.clear(), 4);
    }

    #[test]
    fn what_is_a_beginning_of_more_gives_way() {
        let mut tree = Tree::new(None);
        insert(&mut tree, 1, &ids(0..300), &[]);
        insert(&mut tree, 2, &ids(0..400), &[]);
        assert_eq!(tree.n_pages(), 2);
        assert_eq!(tree.find(&None, &ids(0..400)).pages, [(1, 0), (2, 1)]);
        insert(&mut tree, 3, &ids(0..350), &[]);
        assert_eq!(tree.n_pages(), 2, "a longer one is there");
        insert(&mut tree, 4, &ids(0..512), &[]);
        assert_eq!(tree.find(&None, &ids(0..512)).pages, [(1, 0), (4, 1)]);
        insert(&mut tree, 5, &ids(0..512 + FEWEST_TOKENS as u32 - 1), &[]);
        assert_eq!(tree.n_pages(), 2, "too few tokens for a page");
    }

    #[test]
    fn states_are_gone_on_behind_where_they_were_kept() {
        let mut tree = Tree::new(Some(2));
        let text = ids(0..900);
        // A state at 512, and one at 700; what stands behind it has none.
        insert(&mut tree, 1, &text[..700], &[false, true, true]);
        insert(&mut tree, 2, &text[..300], &[false, true]);
        let n_found = |tree: &mut Tree<_>, n: usize| tree.find(&None, &text[..n]).n_tokens;
        // 640 is where the chunk of 700 begins.
        let wanted = [(900, 700), (700, 700), (699, 699), (640, 640), (639, 512), (512, 512), (511, 300), (299, 299)];
        for (n, n_tokens) in [&wanted[..], &[(256, 0), (255, 0)]].concat() {
            assert_eq!(n_found(&mut tree, n), n_tokens, "{n}");
        }
        insert(&mut tree, 3, &text[..800], &[false, false, false, false]);
        assert_eq!(n_found(&mut tree, 900), 700, "without a state there is nothing to go on with");
        insert(&mut tree, 4, &text[..256], &[true]);
        assert_eq!(n_found(&mut tree, 256), 256, "a state that came later");
        assert_eq!(tree.find(&None, &text[..256]).pages, [(4, 0)]);
        assert_eq!((tree.n_pages(), tree.n_evictable()), (5, 13), "four have a state of two pages");
    }

    #[test]
    fn leaves_leave_oldest_first_and_guards_keep_theirs() {
        let mut tree = Tree::new(None);
        let guard = insert(&mut tree, 1, &ids(0..600), &[]);
        insert(&mut tree, 2, &ids(1000..1300), &[]);
        insert(&mut tree, 3, &ids(2000..2100), &[]);
        assert_eq!((tree.n_pages(), tree.n_evictable()), (6, 3));
        tree.find(&None, &ids(1000..1300));
        let left = |tree: &mut Tree<_>| [0, 1000, 2000].map(|at| tree.find(&None, &ids(at..at + 600)).n_tokens);
        assert!(tree.evict());
        assert_eq!(left(&mut tree), [600, 300, 0], "the one that was used least lately");
        assert!(tree.evict() && tree.evict() && !tree.evict());
        assert_eq!(left(&mut tree), [600, 0, 0]);
        drop(guard);
        assert_eq!(tree.n_evictable(), 3);
        assert!(tree.evict());
        assert_eq!(left(&mut tree), [512, 0, 0], "from its end");
        let found = tree.find(&None, &ids(0..600));
        assert_eq!((tree.clear(), tree.n_pages()), (0, 2), "who has found it keeps it");
        drop(found);
        assert_eq!((tree.clear(), tree.n_pages()), (2, 0));
    }

    #[test]
    fn a_tree_finds_what_a_list_finds() {
        let mut rng = Rng::new(11);
        let mut tree = Tree::new(None);
        let mut texts: Vec<Vec<TokenId>> = Vec::new();
        for round in 0..300 {
            // Mostly a beginning of an earlier one, and something else.
            let mut text = match texts.is_empty() || rng.below(5) == 0 {
                true => Vec::new(),
                false => {
                    let earlier = &texts[rng.below(texts.len())];
                    earlier[..rng.below(earlier.len() + 1)].to_vec()
                }
            };
            text.extend((0..rng.below(400)).map(|_| TokenId(rng.below(3) as u32)));
            let longest = |other: &Vec<TokenId>| other.iter().zip(&text).take_while(|(a, b)| a == b).count();
            let want = texts.iter().map(longest).max().unwrap_or(0);
            let found = tree.find(&None, &text);
            // A rest that is too short for a page is not kept.
            assert!(found.n_tokens <= want && want < found.n_tokens + FEWEST_TOKENS, "{round}");
            for (i, (_, n)) in found.pages.iter().enumerate() {
                assert_eq!(i, *n, "pages are in their order");
            }
            insert(&mut tree, round, &text, &[]);
            texts.push(text);
        }
        let n = tree.n_pages();
        assert_eq!((tree.n_evictable(), tree.clear()), (n, n));
        assert!(tree.roots.is_empty());
    }
}
