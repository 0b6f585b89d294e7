# The two commands of the README, and what is typed often.
.PHONY: demo test nightly build fmt reference cluster clean-demo

demo:
	./demo

test:
	./test

# All tests, then random faults for about a quarter of an hour.
nightly: test
	GAPLESS_FAULT_POINTS=200 cargo test --release --locked --workspace --test faults_random -- --nocapture
	cargo test --release --locked --workspace --test simulation -- --ignored --nocapture

# Three etcd members, two coordinators, three workers, until Ctrl-C.
cluster:
	./deploy/local-cluster

# The tables of docs/job-reference.md, from the table of keys; a test fails where they are not the same.
reference:
	REWRITE=1 cargo test --release --locked --workspace --lib job::tests::reference

build:
	cargo build --release --locked

fmt:
	cargo fmt --all

clean-demo:
	rm -rf demo-data
