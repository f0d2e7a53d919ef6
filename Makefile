# What people type. Each target is one line of dev/quokka or of a script in dev/: read those for how.

.DEFAULT_GOAL := help
.PHONY: help up down status logs tools servers-up servers-down cluster-up cluster-down images install kubectl \
	fmt generate check test e2e chaos seed bench-claims bench-booking bench-search clean-cache

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## Everything: tools, servers, Kubernetes, images, charts, samples. Again: repair and renew
	@dev/quokka up

down: ## Take away all that `up` made on this machine, but for the cache of tools
	@dev/quokka down

status: ## What runs and what it takes
	@dev/quokka status

logs: ## A program's or Deployment's log: make logs c=quokka-promotions
	@dev/quokka logs $(c)

tools: ## Debian packages, Kubernetes, helm, Kafka and what checks charts
	@dev/quokka tools checks

servers-up: ## Redis, Kafka and PostgreSQL alone
	@dev/quokka servers-up

servers-down: ## Stop them; their data stays until `make down`
	@dev/quokka servers-down

cluster-up: ## The Kubernetes node alone
	@dev/quokka cluster-up

cluster-down: ## Take the node away
	@dev/quokka cluster-down

images: ## The binaries and their images; with REGISTRY named for it
	@dev/quokka images

install: ## Charts and samples, on the cluster that runs
	@dev/quokka install

kubectl: ## How to use kubectl with this cluster
	@echo 'eval "$$(dev/quokka env)"    # then: kubectl get tsale,ccamp'
	@echo 'dev/quokka kubectl get tsale,ccamp'

seed: ## Many stays on the platform that runs: make seed STAYS=50000 SEED=1; ARGS=--help lists the rest
	@dev/quokka seed --stays $(or $(STAYS),50000) --seed $(or $(SEED),1) $(ARGS)

fmt: ## Format the code
	@cargo fmt --all

generate: ## Write every generated file anew
	@dev/generate.sh

check: ## Formatting, clippy, unit tests, generated files: the quick part
	@dev/check.sh

test: ## Everything: check, integration tests, charts, end to end
	@dev/test.sh

e2e: ## The end-to-end test on the one-node cluster
	@dev/e2e.sh

chaos: ## The same under faults, with a checker of what clients saw and stores hold
	@dev/chaos.sh

bench-claims: ## What a claim costs, side by side with what it could
	@dev/bench-claims.sh

bench-booking: ## What a hold costs beside a bare update, and an order through the whole saga
	@dev/bench-booking.sh

bench-search: ## What the search index is worth, side by side with PostgreSQL alone; ARGS=--help lists what it takes
	@dev/bench-search.sh $(ARGS)

clean-cache: ## Remove the tools as well, after `make down`
	@dev/quokka clean-cache
