//! Whatever the tree: what is packed is what is unpacked, and packed again it is the same bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: OsString },
}

fn name() -> impl Strategy<Value = OsString> {
    prop_oneof![
        // Few, so that there are folders with something in them.
        4 => "[a-c]".prop_map(OsString::from),
        1 => prop::sample::select(vec!["ä", ".hidden", " ", "a:b", "a\nb", "..."])
            .prop_map(OsString::from),
        1 => (90_usize..130).prop_map(|length| OsString::from("n".repeat(length))),
        1 => prop::collection::vec(0x80_u8..=0xff, 1..120)
            .prop_map(|bytes| OsStr::from_bytes(&bytes).to_owned()),
    ]
}

fn thing() -> impl Strategy<Value = Thing> {
    // Whoever runs the tests must be able to read it.
    let mode = 0_u32..=0o777;
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        (0_usize..200_000).prop_map(|length| vec![7; length]),
    ];
    prop_oneof![
        mode.clone()
            .prop_map(|mode| Thing::Folder { mode: mode | 0o700 }),
        (mode, content).prop_map(|(mode, content)| Thing::File {
            mode: mode | 0o600,
            content
        }),
        name().prop_map(|target| Thing::Link { target }),
    ]
}

/// Things at paths, and folders around them; what would be below a file is not there.
fn tree() -> impl Strategy<Value = BTreeMap<PathBuf, Thing>> {
    let path = prop::collection::vec(name(), 1..4);
    prop::collection::vec((path, thing()), 0..24).prop_map(|things| {
        let mut tree: BTreeMap<PathBuf, Thing> = BTreeMap::new();
        for (path, thing) in things {
            let path: PathBuf = path.iter().collect();
            let around: Vec<_> = path.ancestors().skip(1).map(Path::to_owned).collect();
            let around: Vec<_> = around
                .into_iter()
                .filter(|path| path != Path::new(""))
                .collect();
            let is_free =
                |path: &PathBuf| matches!(tree.get(path), None | Some(Thing::Folder { .. }));
            if tree.contains_key(&path) || !around.iter().all(is_free) {
                continue;
            }
            for folder in around {
                tree.entry(folder).or_insert(Thing::Folder { mode: 0o755 });
            }
            tree.insert(path, thing);
        }
        tree
    })
}

fn make(tree: &BTreeMap<PathBuf, Thing>, folder: &Path) {
    for (path, thing) in tree {
        let path = folder.join(path);
        let mode = match thing {
            Thing::Folder { mode } => {
                fs::create_dir(&path).unwrap();
                mode
            }
            Thing::File { mode, content } => {
                fs::write(&path, content).unwrap();
                mode
            }
            Thing::Link { target } => {
                symlink(target, &path).unwrap();
                continue;
            }
        };
        fs::set_permissions(path, Permissions::from_mode(*mode)).unwrap();
    }
}

fn unpacked(packed: &Packed) -> Vec<(PathBuf, Thing)> {
    let things = unpack_raw(packed).into_iter().map(|(name, entry)| {
        let thing = match entry.kind {
            tar::EntryType::Directory => Thing::Folder { mode: entry.mode },
            tar::EntryType::Regular => Thing::File {
                mode: entry.mode,
                content: entry.content,
            },
            tar::EntryType::Symlink => Thing::Link {
                target: entry.target.unwrap().into(),
            },
            other => panic!("{other:?}"),
        };
        (name.into(), thing)
    });
    things.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_packed_is_what_is_unpacked(tree in tree()) {
        let archives = [(); 2].map(|()| {
            let here = Here::with(&[]);
            make(&tree, &here.folder());
            let plan = here.plan(&["."]).unwrap();
            let packed = plan.pack(|_| {}).unwrap();
            let again = plan.pack(|_| {}).unwrap();
            assert_eq!(packed.sha256, again.sha256);
            (packed.sha256, unpacked(&packed), plan)
        });
        prop_assert_eq!(&archives[0].0, &archives[1].0, "made twice");
        let expected: Vec<_> = tree.clone().into_iter().collect();
        prop_assert_eq!(&archives[0].1, &expected);
        let contents = tree.values().filter_map(|thing| match thing {
            Thing::File { content, .. } => Some(content.len() as u64),
            _ => None,
        });
        prop_assert_eq!(archives[0].2.content_bytes(), contents.sum::<u64>());
        prop_assert_eq!(archives[0].2.entries(), tree.len() as u64);
    }
}
