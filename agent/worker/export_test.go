package worker

// RuntimeLibrary is for the tests of package worker_test.
var RuntimeLibrary = runtimeLibrary
