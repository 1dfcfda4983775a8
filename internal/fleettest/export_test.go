package fleettest

// IdentityModel is the ONNX file of a test model.
var IdentityModel = identityModel
