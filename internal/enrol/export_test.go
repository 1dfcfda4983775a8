package enrol

// CheckOf is checkOf for tests.
var CheckOf = checkOf
