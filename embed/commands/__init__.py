"""One file per command. Each has SUMMARY, add_arguments(parser) and run(arguments); heavy imports happen inside run."""
