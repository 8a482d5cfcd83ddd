"""From a head in scanner space to a brain in template space, and whether it went well."""
