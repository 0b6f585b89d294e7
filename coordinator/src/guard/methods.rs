//! What each call needs: the one table. A method that is not in it needs `admin`, and a test sees to it
//! that all are.

use gapless_platform::tokens::Role;

/// What a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Anybody who may connect: for load balancers and probes, which hold no token.
    Nothing,
    Role(Role),
}

/// One gRPC method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    pub path: &'static str,
    pub needs: Needs,
    /// Whether it is on the record when it is allowed; what is denied always is.
    pub audited: bool,
}

const fn reads(path: &'static str) -> Method {
    Method {
        path,
        needs: Needs::Role(Role::View),
        audited: false,
    }
}

const fn acts(path: &'static str, role: Role) -> Method {
    Method {
        path,
        needs: Needs::Role(role),
        audited: true,
    }
}

const fn works(path: &'static str, audited: bool) -> Method {
    Method {
        path,
        needs: Needs::Role(Role::Worker),
        audited,
    }
}

const fn open(path: &'static str) -> Method {
    Method {
        path,
        needs: Needs::Nothing,
        audited: false,
    }
}

pub const METHODS: &[Method] = &[
    acts("/gapless.v1.Jobs/Submit", Role::Submit),
    acts("/gapless.v1.Jobs/StopRun", Role::Operate),
    acts("/gapless.v1.Jobs/CancelRun", Role::Operate),
    reads("/gapless.v1.Jobs/GetRun"),
    reads("/gapless.v1.Jobs/ListRuns"),
    reads("/gapless.v1.Jobs/WatchRun"),
    reads("/gapless.v1.Jobs/ListPartitions"),
    reads("/gapless.v1.Jobs/ListEvents"),
    reads("/gapless.v1.Cluster/GetCluster"),
    reads("/gapless.v1.Cluster/ListWorkers"),
    acts("/gapless.v1.Cluster/AcceptRestore", Role::Admin),
    works("/gapless.v1.Workers/Session", true),
    works("/gapless.v1.Workers/GetStep", false),
    works("/gapless.v1.Workers/ListCommitted", false),
    open("/grpc.health.v1.Health/Check"),
    open("/grpc.health.v1.Health/Watch"),
    reads("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
];

/// The row of a path.
pub fn of(path: &str) -> Method {
    let known = METHODS.iter().find(|method| method.path == path);
    known.copied().unwrap_or(Method {
        path: "",
        needs: Needs::Role(Role::Admin),
        audited: true,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;

    use super::*;

    #[test]
    fn every_method_that_is_served_has_a_row_and_every_row_a_method() {
        let descriptors = [
            gapless_proto::v1::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        let mut served = BTreeSet::new();
        for bytes in descriptors {
            let set = prost_types::FileDescriptorSet::decode(bytes).expect("descriptors");
            for file in &set.file {
                for service in &file.service {
                    let names = service.method.iter().map(|method| method.name());
                    served.extend(names.map(|name| format!("/{}.{}/{name}", file.package(), service.name())));
                }
            }
        }
        let rows: BTreeSet<String> = METHODS.iter().map(|method| method.path.to_string()).collect();
        assert_eq!(rows.len(), METHODS.len(), "one row for each method");
        assert_eq!(served, rows);
    }

    #[test]
    fn reading_never_needs_more_than_view_and_acting_always_does() {
        for method in METHODS {
            let name = method.path.rsplit('/').next().expect("a name");
            let needs = match method.needs {
                Needs::Nothing => None,
                Needs::Role(role) => Some(role),
            };
            if name.starts_with("Get") || name.starts_with("List") || name.starts_with("Watch") {
                let most = [None, Some(Role::View), Some(Role::Worker)];
                assert!(most.contains(&needs), "{}", method.path);
            }
            if method.path.starts_with("/gapless.v1.Jobs/") && method.audited {
                assert!(needs > Some(Role::View), "{}", method.path);
            }
        }
        assert_eq!(of("/gapless.v1.Jobs/Unheard").needs, Needs::Role(Role::Admin));
    }
}
