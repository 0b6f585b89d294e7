# The two commands of the README, and what is typed often.
.PHONY: demo test build fmt cluster clean-demo

demo:
	./demo

test:
	./test

# Three etcd members, two coordinators, three workers, until Ctrl-C.
cluster:
	./deploy/local-cluster

build:
	cargo build --release --locked

fmt:
	cargo fmt --all

clean-demo:
	rm -rf demo-data
