"""What ``gatekit doctor`` looks at: the installation, the machine, folders, plugins."""
