//! Symbolic links stay inside of what they came with, and go straight to where they lead.
//!
//! They are followed through the finished tree, which is what they will be followed through in the pod:
//! `b -> a/../x` may be harmless until `a` is a link itself.

use std::path::{Component, Path};

use super::Error;
use super::tree::{Kind, Tree};

/// Linux follows no more in one path (`path_resolution(7)`), so a chain that is longer leads nowhere.
const MAX_LINKS: usize = 40;

/// Finds the first link that leads out of its argument, or that the pod would not take: there, each link is
/// judged by its own text, and `..` after a name may go up from wherever that name leads.
///
/// # Errors
/// [`Error::LeadsOut`], [`Error::Winding`].
pub(super) fn check(tree: &Tree) -> Result<(), Error> {
    for (path, node) in tree.iter() {
        let Kind::Link { target, top } = &node.kind else {
            continue;
        };
        let (source, target) = (node.source.clone(), target.clone());
        if leads_out(tree, path, &target, top) {
            return Err(Error::LeadsOut {
                path: source,
                target,
            });
        }
        if is_winding(&target) {
            return Err(Error::Winding {
                path: source,
                target,
            });
        }
    }
    Ok(())
}

/// Whether a path goes down and up again.
fn is_winding(target: &Path) -> bool {
    let mut steps = target.components();
    steps.any(|step| matches!(step, Component::Normal(_)))
        && steps.any(|step| step == Component::ParentDir)
}

fn leads_out(tree: &Tree, path: &Path, target: &Path, top: &Path) -> bool {
    let mut here = path.to_owned();
    here.pop();
    // The next step last.
    let mut steps: Vec<Component<'_>> = target.components().rev().collect();
    let mut links = 0;
    while let Some(step) = steps.pop() {
        match step {
            Component::RootDir | Component::Prefix(_) => return true,
            Component::ParentDir if here == top => return true,
            Component::ParentDir => {
                here.pop();
            }
            Component::CurDir => {}
            Component::Normal(name) => {
                here.push(name);
                if let Some(Kind::Link { target, .. }) = tree.get(&here).map(|node| &node.kind) {
                    links += 1;
                    if links > MAX_LINKS {
                        return false;
                    }
                    here.pop();
                    steps.extend(target.components().rev());
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Limits;
    use crate::files::tree::Node;

    /// The first link that leads out of a folder `top`.
    fn leaving(links: &[(&str, &str)]) -> Option<String> {
        let mut tree = Tree::new(Limits::default());
        for (path, target) in links {
            let kind = Kind::Link {
                target: target.into(),
                top: "top".into(),
            };
            let path = Path::new("top").join(path);
            tree.insert(path.clone(), Node::new(&path, kind)).unwrap();
        }
        match check(&tree) {
            Ok(()) => None,
            Err(Error::LeadsOut { path, .. }) => Some(path.to_str().unwrap().to_owned()),
            Err(Error::Winding { .. }) => None,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_link_inside_of_its_folder_is_kept() {
        for target in ["x", "a/../x", "./x", "missing/x", ".", "a/b/../.."] {
            assert_eq!(leaving(&[("link", target)]), None, "{target}");
        }
        assert_eq!(leaving(&[("a/b/link", "../../x")]), None);
    }

    /// As the unpacker in the pod judges them.
    #[test]
    fn a_link_goes_straight_to_where_it_leads() {
        for (target, winding) in [
            ("x/y", false),
            ("../x/y", false),
            ("../..", false),
            ("./x", false),
            ("a/../x", true),
            ("../a/../x", true),
            ("a/..", true),
        ] {
            assert_eq!(is_winding(Path::new(target)), winding, "{target}");
        }
    }

    #[test]
    fn a_link_that_leads_out_is_found() {
        for target in ["/etc/passwd", "..", "../x", "a/../../x", "../top/x", "/"] {
            let found = leaving(&[("link", target)]);
            assert_eq!(found.as_deref(), Some("top/link"), "{target}");
        }
        assert!(leaving(&[("a/b/link", "../../../x")]).is_some());
    }

    /// Each step alone stays inside.
    #[test]
    fn a_link_that_leads_out_through_another_is_found() {
        let through = [("a/b/c", "../.."), ("link", "a/b/c/../x")];
        assert_eq!(leaving(&through).as_deref(), Some("top/link"));
        let deep = [("short", "a/b/c"), ("link", "short/../../../x")];
        assert_eq!(leaving(&deep), None, "three folders down, three up");
        let shallow = [("short", "."), ("link", "short/x/../../y")];
        assert_eq!(leaving(&shallow).as_deref(), Some("top/link"));
    }

    #[test]
    fn links_that_go_round_end() {
        assert_eq!(leaving(&[("a", "b"), ("b", "a")]), None);
        assert_eq!(leaving(&[("a", "a/a/../..")]), None);
    }
}
