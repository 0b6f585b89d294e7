# The two commands of the README, and what is typed often.
.PHONY: demo test build fmt clean-demo

demo:
	./demo

test:
	./test

build:
	cargo build --release --locked

fmt:
	cargo fmt --all

clean-demo:
	rm -rf demo-data
